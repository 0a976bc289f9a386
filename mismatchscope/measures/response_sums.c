/* What is said of whole responses and needs the order of their tokens; see sequence_sums.py.
 *
 * Legend: response s is tokens offsets[s] up to offsets[s + 1]; d = log rho of a token, k3 = rho - 1 - d.
 */
#include <math.h>
#include <stdint.h>

enum { PIECE = 256 };

/* pairs[s] = sum over t < j of |rho_t - 1| (1 - rho_j)_+; by_index[t] is added (1 - rho_t)_+ of each response's token
   t. rho - 1 is k3 + d, which near d = 0 takes no digit from d. What is infinite before tokens that are not short adds
   nothing. */
void response_sums(const double *log_ratio, const double *k3, const int64_t *offsets, int64_t n_responses,
                   double *pairs, double *by_index) {
    double distance[PIECE], shortfall[PIECE];
    for (int64_t s = 0; s < n_responses; s++) {
        double earlier = 0, sum = 0;
        for (int64_t begin = offsets[s]; begin < offsets[s + 1]; begin += PIECE) {
            int64_t n = offsets[s + 1] - begin < PIECE ? offsets[s + 1] - begin : PIECE;
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
                double d = log_ratio[begin + i], growth = d > -INFINITY ? k3[begin + i] + d : -1;
                distance[i] = fabs(growth);
                shortfall[i] = growth < 0 ? -growth : 0;
            }
            double *of_index = by_index + (begin - offsets[s]);
            for (int64_t i = 0; i < n; i++) {
                of_index[i] += shortfall[i];
                sum += shortfall[i] > 0 ? earlier * shortfall[i] : 0;
                earlier += distance[i];
            }
        }
        pairs[s] = sum;
    }
}

/* Rows of the states whose place has a hash below `limit`, as selected_states.py hashes it; returns how many. */
int64_t places_below(const int64_t *sequence_id, const int64_t *position, const int64_t *offsets, int64_t n_sequences,
                     uint64_t limit, int64_t *row) {
    int64_t found = 0;
    for (int64_t s = 0; s < n_sequences; s++) {
        uint64_t base = (uint64_t)sequence_id[s] * 0x9e3779b97f4a7c15;
        for (int64_t begin = offsets[s]; begin < offsets[s + 1]; begin += PIECE) {
            int64_t end = begin + PIECE < offsets[s + 1] ? begin + PIECE : offsets[s + 1], any = 0;
            uint64_t hash[PIECE];
#pragma omp simd reduction(+ : any)
            for (int64_t i = begin; i < end; i++) {
                uint64_t key = base + (uint64_t)position[i];
                key = (key ^ (key >> 30)) * 0xbf58476d1ce4e5b9;
                key = (key ^ (key >> 27)) * 0x94d049bb133111eb;
                key ^= key >> 31;
                hash[i - begin] = key;
                any += key < limit;
            }
            for (int64_t i = begin; any && i < end; i++)
                if (hash[i - begin] < limit) row[found++] = i;
        }
    }
    return found;
}
