/* Sums over segments of sampled tokens by bins of log mu; see binned_sums.py. */
#include "token_figures.h"

enum { PIECE = 256, FIGURES = 7 };

static void figures_of_piece(const double *mu, const double *pi, int64_t tokens, double figure[FIGURES][PIECE]) {
#pragma omp simd
    for (int64_t i = 0; i < tokens; i++) {
        token_figures t = figures_of(mu[i], pi[i], 1);
        figure[0][i] = t.shortfall;
        figure[1][i] = t.k3;
        figure[2][i] = t.d;
        figure[3][i] = t.size;
        figure[4][i] = t.ratio;
        figure[5][i] = 1 - t.m;
        figure[6][i] = t.gap;
    }
}

/* Segment u is tokens offsets[u] up to offsets[u + 1]. A token's bin is the number of edges at or below log mu. `sums`
   is [segments, bins, 7]: how many tokens, then the first six figures; `largest`, of the seventh, is
   [segments, bins], -inf where there is no token. */
void binned_sums(const double *mu, const double *pi, const int64_t *offsets, int64_t n_segments, const double *edges,
                 int64_t n_edges, double *sums, double *largest) {
    int64_t bins = n_edges + 1;
    double figure[FIGURES][PIECE];
    int64_t bin[PIECE];
    for (int64_t u = 0; u < n_segments; u++) {
        double *sum = sums + u * bins * FIGURES, *top = largest + u * bins;
        for (int64_t b = 0; b < bins * FIGURES; b++)
            sum[b] = 0;
        for (int64_t b = 0; b < bins; b++)
            top[b] = -INFINITY;
        for (int64_t begin = offsets[u]; begin < offsets[u + 1]; begin += PIECE) {
            int64_t left = offsets[u + 1] - begin, tokens = left < PIECE ? left : PIECE;
            figures_of_piece(mu + begin, pi + begin, tokens, figure);
            for (int64_t i = 0; i < tokens; i++)
                bin[i] = 0;
            for (int64_t e = 0; e < n_edges; e++)
                for (int64_t i = 0; i < tokens; i++)
                    bin[i] += mu[begin + i] >= edges[e];
            for (int64_t i = 0; i < tokens; i++) {
                double *at = sum + bin[i] * FIGURES;
                at[0] += 1;
                at[1] += figure[0][i];
                at[2] += figure[1][i];
                at[3] += figure[2][i];
                at[4] += figure[3][i];
                at[5] += figure[4][i];
                at[6] += figure[5][i];
                top[bin[i]] = figure[6][i] > top[bin[i]] ? figure[6][i] : top[bin[i]];
            }
        }
    }
}
