/* Tokens of each sequence by the bins of a key; see corrections/bins.py.
 *
 * Legend: sequence s is tokens offsets[s] up to offsets[s + 1]; G groups of B bins, one after another. Nearly all
 * tokens are in the bin of zero, so that one is tried first and summed apart.
 */
#include <stddef.h>
#include <stdint.h>

/* The place of each token among the G B bins. Bin b holds keys in (edge[b - 1], edge[b]]; `zero` is that of 0. */
void bin_places(const double *key, const int64_t *group, int64_t n, const double *edge, int64_t edges, int64_t zero,
                uint16_t *place) {
    for (int64_t i = 0; i < n; i++) {
        int64_t low = 0, high = edges;
        if ((zero == 0 || key[i] > edge[zero - 1]) && (zero == edges || key[i] <= edge[zero]))
            low = high = zero;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (edge[middle] < key[i])
                low = middle + 1;
            else
                high = middle;
        }
        place[i] = (uint16_t)(low + (group ? group[i] * (edges + 1) : 0));
    }
}

/* Sums of a value, or counts where it is NULL, into a table [S, width] of zeros. The place of a token in
   the middle is taken for that of most. */
void bin_table(const uint16_t *place, const double *value, const int64_t *offsets, int64_t n_sequences, int64_t width,
               double *table) {
    for (int64_t s = 0; s < n_sequences; s++, table += width) {
        int64_t begin = offsets[s], end = offsets[s + 1], others = 0;
        if (begin == end) continue;
        uint16_t home = place[(begin + end) / 2];
        double near = 0;
#pragma omp simd reduction(+ : near, others)
        for (int64_t i = begin; i < end; i++) {
            near += place[i] == home ? (value ? value[i] : 1) : 0;
            others += place[i] != home;
        }
        table[home] = near;
        for (int64_t i = begin; others && i < end; i++)
            if (place[i] != home) {
                table[place[i]] += value ? value[i] : 1;
                others--;
            }
    }
}
