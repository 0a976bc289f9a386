/* Sums over the tokens of each segment of what a sampled token says of two policies; see token_sums.py. */
#include "token_figures.h"

/* The layout is read by numpy: see `TOKEN_SUMS` in token_sums.py. */
typedef struct {
    double tokens, rejected;
    double log_ratio, log_ratio_square, abs_logprob_diff, k3, ratio, outside_band, shortfall, prob_diff,
            abs_prob_diff, exp_abs_diff, prob_mu, prob_pi, prob_mu_square, prob_pi_square, prob_product;
    double smallest_log_ratio, smallest_abs_logprob_diff, smallest_k3, smallest_prob_diff, smallest_abs_prob_diff,
            largest_log_ratio, largest_k3, largest_prob_diff;
} token_sums_result;

/* Where each token's figures are written, or NULL. */
typedef struct {
    double *log_ratio, *k3, *prob_diff;
} token_columns;

/* Of d; see `RATIO_BAND` of token_sums.py. */
typedef struct {
    double low, high;
} log_band;

static const double TOLERANCE = 1e-5; /* `LOG_TOLERANCE` of sampled.py */

INLINE double logp_at(const void *logp, int64_t i, int is_float) {
    return is_float ? (double)((const float *)logp)[i] : ((const double *)logp)[i];
}

INLINE token_sums_result segment_sums(const void *mu, const void *pi, int is_float, const uint8_t *counts,
                                      int64_t begin, int64_t end, log_band band, token_columns kept) {
    int64_t tokens = 0, rejected = 0;
    double log_ratio = 0, log_ratio_square = 0, abs_logprob_diff = 0, k3 = 0, ratio = 0, outside_band = 0,
           shortfall = 0, prob_diff = 0, abs_prob_diff = 0, exp_abs_diff = 0, prob_mu = 0, prob_pi = 0,
           prob_mu_square = 0, prob_pi_square = 0, prob_product = 0;
    double smallest_log_ratio = INFINITY, smallest_abs_logprob_diff = INFINITY, smallest_k3 = INFINITY,
            smallest_prob_diff = INFINITY, smallest_abs_prob_diff = INFINITY;
    double largest_log_ratio = -INFINITY, largest_k3 = -INFINITY, largest_prob_diff = -INFINITY;
#pragma omp simd simdlen(8) reduction(+ : tokens, rejected, log_ratio, log_ratio_square, abs_logprob_diff, k3, ratio, \
        outside_band, shortfall, prob_diff, abs_prob_diff, exp_abs_diff, prob_mu, prob_pi, prob_mu_square, \
        prob_pi_square, prob_product) \
    reduction(min : smallest_log_ratio, smallest_abs_logprob_diff, smallest_k3, smallest_prob_diff, \
        smallest_abs_prob_diff) \
    reduction(max : largest_log_ratio, largest_k3, largest_prob_diff)
    for (int64_t i = begin; i < end; i++) {
        double x = logp_at(mu, i, is_float), y = logp_at(pi, i, is_float);
        int64_t asked = counts ? counts[i] : 1;
        int64_t used = asked & (x <= TOLERANCE) & (y <= TOLERANCE) & (x > -INFINITY);
        token_figures t = figures_of(x, y, used);
        double change = copysign(t.gap, t.d);
        if (kept.log_ratio) {
            kept.log_ratio[i] = t.d;
            kept.k3[i] = t.k3;
            kept.prob_diff[i] = change;
        }
        tokens += used;
        rejected += asked ^ used;
        log_ratio += t.d;
        log_ratio_square += t.d * t.d;
        abs_logprob_diff += t.size;
        k3 += t.k3;
        ratio += used ? t.ratio : 0;
        outside_band += (t.d < band.low) | (t.d > band.high) ? 1 : 0;
        shortfall += t.shortfall;
        prob_diff += change;
        abs_prob_diff += t.gap;
        exp_abs_diff += used ? t.inverse : 0;
        prob_mu += t.m;
        prob_pi += t.p;
        prob_mu_square += t.m * t.m;
        prob_pi_square += t.p * t.p;
        prob_product += t.m * t.p;
        smallest_log_ratio = used & (t.d < smallest_log_ratio) ? t.d : smallest_log_ratio;
        smallest_abs_logprob_diff = used & (t.size < smallest_abs_logprob_diff) ? t.size : smallest_abs_logprob_diff;
        smallest_k3 = used & (t.k3 < smallest_k3) ? t.k3 : smallest_k3;
        smallest_prob_diff = used & (change < smallest_prob_diff) ? change : smallest_prob_diff;
        smallest_abs_prob_diff = used & (t.gap < smallest_abs_prob_diff) ? t.gap : smallest_abs_prob_diff;
        largest_log_ratio = used & (t.d > largest_log_ratio) ? t.d : largest_log_ratio;
        largest_k3 = used & (t.k3 > largest_k3) ? t.k3 : largest_k3;
        largest_prob_diff = used & (change > largest_prob_diff) ? change : largest_prob_diff;
    }
    return (token_sums_result){
        tokens, rejected, log_ratio, log_ratio_square, abs_logprob_diff, k3, ratio, outside_band,
        shortfall, prob_diff, abs_prob_diff, exp_abs_diff, prob_mu, prob_pi,
        prob_mu_square, prob_pi_square, prob_product,
        smallest_log_ratio, smallest_abs_logprob_diff, smallest_k3, smallest_prob_diff,
        smallest_abs_prob_diff, largest_log_ratio, largest_k3, largest_prob_diff,
    };
}

/* Segment u is tokens offsets[u] up to offsets[u + 1]. `counts` NULL counts every token; a token that it counts and
   that has no legal log-probs is `rejected` and in no other sum. */
void token_sums(const void *logp_mu, const void *logp_pi, int is_float, const uint8_t *counts, const int64_t *offsets,
                int64_t n_segments, const log_band *band, token_sums_result *out) {
    token_columns none = {NULL, NULL, NULL};
    for (int64_t u = 0; u < n_segments; u++) {
        int64_t begin = offsets[u], end = offsets[u + 1];
        if (is_float && counts)
            out[u] = segment_sums(logp_mu, logp_pi, 1, counts, begin, end, *band, none);
        else if (is_float)
            out[u] = segment_sums(logp_mu, logp_pi, 1, NULL, begin, end, *band, none);
        else if (counts)
            out[u] = segment_sums(logp_mu, logp_pi, 0, counts, begin, end, *band, none);
        else
            out[u] = segment_sums(logp_mu, logp_pi, 0, NULL, begin, end, *band, none);
    }
}

/* The same of columns in double that all count, and each token's figures beside. */
void token_figures_and_sums(const double *logp_mu, const double *logp_pi, const int64_t *offsets, int64_t n_segments,
                            const log_band *band, double *log_ratio, double *k3, double *prob_diff,
                            token_sums_result *out) {
    token_columns kept = {log_ratio, k3, prob_diff};
    for (int64_t u = 0; u < n_segments; u++)
        out[u] = segment_sums(logp_mu, logp_pi, 0, NULL, offsets[u], offsets[u + 1], *band, kept);
}

/* rho - 1 - log rho; NaN stays NaN. */
void k3_values(const double *log_ratio, int64_t n, double *out) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double d = log_ratio[i];
        out[i] = d == d ? figures_of(0, d, 1).k3 : d;
    }
}
