/* Sums and extremes over the tokens of each response that trainers' metrics are functions of; see native/groups.py,
 * whose numpy is what this is tested against.
 *
 * Each group of sums that is asked for takes in the tokens that count, a block at a time: so nobody pays for an
 * exponential that no metric needs.
 *
 * Legend: x = log mu and y = log pi of a token, d = y - x, rho = exp(d).
 */
#include "double_log.h"

enum { BLOCK = 512 }; /* tokens, so that what is kept of each stays in the nearest cache */
enum { RUN = 64 };    /* so many tokens side by side that count are read where they lie */

/* A bit for each group but the logs', which is always made; each of the others reads ratios, so RATIOS goes with it.
   These and the layouts are those of `GROUPS` and `_LIMITS` in native/groups.py. */
enum { RATIOS = 1, WEIGHTS = 2, PROBABILITIES = 4, BOTH_WAYS = 8 };

typedef struct {
    double tokens, log_ratio, abs_log_ratio, square_log_ratio, changed, largest_log_ratio, smallest_log_ratio,
        smallest_abs_log_ratio;
} log_sums;

typedef struct {
    double ratio, ratio_to_cap, ratio_distance, k3, clamped_k3;
} ratio_sums;

typedef struct {
    double safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above, below;
} weight_sums;

typedef struct {
    double log_p_mu, log_p_pi, p_mu, p_pi, square_p_mu, square_p_pi, p_mu_p_pi, abs_prob_diff, square_prob_diff,
        largest_abs_prob_diff;
} probability_sums;

typedef struct {
    double reverse_k3, exp_abs_log_ratio, js;
} both_ways_sums;

typedef struct {
    log_sums logs;
    ratio_sums ratios;
    weight_sums weights;
    probability_sums probabilities;
    both_ways_sums both_ways;
} native_result;

static const native_result EMPTY = {
    .logs.largest_log_ratio = -INFINITY,
    .logs.smallest_log_ratio = INFINITY,
    .logs.smallest_abs_log_ratio = INFINITY,
    .probabilities.largest_abs_prob_diff = -INFINITY,
};

typedef struct {
    double changed, cap, k3, safe_low, safe_high, low, high;
} native_limits;

typedef struct {
    int64_t n;
    const double *x, *y; /* where the tokens lie: in the columns themselves, or copied */
    double copied_x[BLOCK], copied_y[BLOCK];
    double d[BLOCK], rho[BLOCK], less_one[BLOCK]; /* rho - 1 */
} block;

INLINE double smaller(double a, double b) { return a < b ? a : b; }

INLINE double larger(double a, double b) { return a > b ? a : b; }

/* exp(d), exp(d) - 1 and exp(d) - 1 - d. */
typedef struct {
    double rho, less_one, k3;
} ratio_figures;

static const double BEYOND = 710; /* exp of it is infinite */

/* Of any d, infinite too. What exp is reduced to is d itself near 0: so nothing nearly equal is subtracted. */
INLINE ratio_figures ratio_of(double d) {
    double upto = smaller(d, BEYOND), z = larger(upto, LOWEST);
    double rounded = z * 0x1.71547652b82fep+0 + (0x1.8p52 + 1022); /* half the power, for the largest does not fit */
    double n = rounded - (0x1.8p52 + 1022);
    double r = z - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33;
    uint64_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    bits <<= 52;
    double half;
    memcpy(&half, &bits, sizeof half);
    double bend = r * r * curvature(r), rho = (bend + r + 1) * half * 2;
    return (ratio_figures){rho, n == 0 ? bend + r : rho - 1, n == 0 ? bend : rho - 1 - upto};
}

/* log(1 + e) for e in [0, 1]: 2 artanh(e / (2 + e)). */
INLINE double log_one_plus(double e) {
    double s = e / (2 + e), s2 = s * s;
    return 2 * (s + s * s2 * artanh_tail(s2));
}

/* log cosh(s / 2) of s and e = exp(-s): k3 of both policies against their mixture, averaged, is that. */
INLINE double log_cosh_half(double s, double e) {
    double x2 = s * s / 4;
    double near = -0.0007386047780804875;
    near = near * x2 + 0.0021869488536155203;
    near = near * x2 - 0.006746031746031746;
    near = near * x2 + 0.022222222222222223;
    near = near * x2 - 0.08333333333333333;
    near = near * x2 + 0.5;
    return s < NEAR ? x2 * near : s / 2 - LN2 + log_one_plus(e);
}

INLINE double logp_at(const void *logp, int64_t i, int is_float) {
    return is_float ? (double)((const float *)logp)[i] : ((const double *)logp)[i];
}

/* The tokens that count from `begin` on, as many as fit; `counts` NULL counts every token. Returns where to go on. */
static int64_t take(block *b, const void *mu, const void *pi, int is_float, const uint8_t *counts, int64_t begin,
                    int64_t end) {
    end = begin + BLOCK < end ? begin + BLOCK : end;
    const uint8_t *hole = counts ? memchr(counts + begin, 0, end - begin) : NULL;
    if (hole && hole - counts >= begin + RUN) {
        end = hole - counts;
        hole = NULL;
    }
    b->x = b->copied_x;
    b->y = b->copied_y;
    b->n = hole ? 0 : end - begin;
    if (hole)
        for (int64_t i = begin; i < end; i++) {
            b->copied_x[b->n] = logp_at(mu, i, is_float);
            b->copied_y[b->n] = logp_at(pi, i, is_float);
            b->n += counts[i];
        }
    else if (is_float)
        for (int64_t i = begin; i < end; i++) {
            b->copied_x[i - begin] = logp_at(mu, i, 1);
            b->copied_y[i - begin] = logp_at(pi, i, 1);
        }
    else {
        b->x = (const double *)mu + begin;
        b->y = (const double *)pi + begin;
    }
    return end;
}

static void add_logs(block *b, const native_limits *l, log_sums *out) {
    double log_ratio = out->log_ratio, abs_log_ratio = out->abs_log_ratio, square_log_ratio = out->square_log_ratio,
           changed = out->changed, largest = out->largest_log_ratio, smallest = out->smallest_log_ratio,
           smallest_abs = out->smallest_abs_log_ratio, different = l->changed;
#pragma omp simd simdlen(8) reduction(+ : log_ratio, abs_log_ratio, square_log_ratio, changed) \
    reduction(max : largest) reduction(min : smallest, smallest_abs)
    for (int64_t i = 0; i < b->n; i++) {
        double d = b->y[i] - b->x[i], size = fabs(d);
        b->d[i] = d;
        log_ratio += d;
        abs_log_ratio += size;
        square_log_ratio += d * d;
        changed += size > different ? 1 : 0;
        largest = larger(largest, d);
        smallest = smaller(smallest, d);
        smallest_abs = smaller(smallest_abs, size);
    }
    *out = (log_sums){out->tokens + (double)b->n, log_ratio, abs_log_ratio, square_log_ratio, changed, largest,
                      smallest, smallest_abs};
}

static void add_ratios(block *b, const native_limits *l, ratio_sums *out) {
    double ratio = out->ratio, ratio_to_cap = out->ratio_to_cap, ratio_distance = out->ratio_distance, k3 = out->k3,
           clamped_k3 = out->clamped_k3, cap = l->cap, highest_k3 = l->k3;
#pragma omp simd simdlen(8) reduction(+ : ratio, ratio_to_cap, ratio_distance, k3, clamped_k3)
    for (int64_t i = 0; i < b->n; i++) {
        ratio_figures f = ratio_of(b->d[i]);
        b->rho[i] = f.rho;
        b->less_one[i] = f.less_one;
        ratio += f.rho;
        ratio_to_cap += smaller(f.rho, cap);
        ratio_distance += fabs(f.less_one);
        k3 += f.k3;
        clamped_k3 += smaller(f.k3, highest_k3); /* where miles clamps d first, k3 is above its highest anyway */
    }
    *out = (ratio_sums){ratio, ratio_to_cap, ratio_distance, k3, clamped_k3};
}

static void add_weights(const block *b, const native_limits *limits, weight_sums *out) {
    native_limits l = *limits;
    double safe_ratio = out->safe_ratio, square_safe_ratio = out->square_safe_ratio, ratio_within = out->ratio_within,
           square_ratio_within = out->square_ratio_within, above = out->above, below = out->below;
#pragma omp simd simdlen(8) \
    reduction(+ : safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above, below)
    for (int64_t i = 0; i < b->n; i++) {
        double safe = smaller(larger(b->rho[i], l.safe_low), l.safe_high);
        double within = smaller(larger(safe, l.low), l.high);
        safe_ratio += safe;
        square_safe_ratio += safe * safe;
        ratio_within += within;
        square_ratio_within += within * within;
        above += safe > l.high ? 1 : 0;
        below += safe < l.low ? 1 : 0;
    }
    *out = (weight_sums){safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above, below};
}

static void add_probabilities(const block *b, probability_sums *out) {
    double log_p_mu = out->log_p_mu, log_p_pi = out->log_p_pi, p_mu = out->p_mu, p_pi = out->p_pi,
           square_p_mu = out->square_p_mu, square_p_pi = out->square_p_pi, p_mu_p_pi = out->p_mu_p_pi,
           abs_prob_diff = out->abs_prob_diff, square_prob_diff = out->square_prob_diff,
           largest = out->largest_abs_prob_diff;
#pragma omp simd simdlen(8) reduction(+ : log_p_mu, log_p_pi, p_mu, p_pi, square_p_mu, square_p_pi, p_mu_p_pi, \
        abs_prob_diff, square_prob_diff) reduction(max : largest)
    for (int64_t i = 0; i < b->n; i++) {
        double m = exponential(b->x[i]), p = exponential(b->y[i]);
        double gap = fabs(b->d[i]) < NEAR ? m * fabs(b->less_one[i]) : fabs(p - m);
        log_p_mu += b->x[i];
        log_p_pi += b->y[i];
        p_mu += m;
        p_pi += p;
        square_p_mu += m * m;
        square_p_pi += p * p;
        p_mu_p_pi += m * p;
        abs_prob_diff += gap;
        square_prob_diff += gap * gap;
        largest = larger(largest, gap);
    }
    *out = (probability_sums){log_p_mu, log_p_pi, p_mu, p_pi, square_p_mu, square_p_pi, p_mu_p_pi, abs_prob_diff,
                              square_prob_diff, largest};
}

static void add_both_ways(const block *b, both_ways_sums *out) {
    double reverse_k3 = out->reverse_k3, exp_abs_log_ratio = out->exp_abs_log_ratio, js = out->js;
#pragma omp simd simdlen(8) reduction(+ : reverse_k3, exp_abs_log_ratio, js)
    for (int64_t i = 0; i < b->n; i++) {
        ratio_figures inverse = ratio_of(-b->d[i]);
        reverse_k3 += inverse.k3;
        exp_abs_log_ratio += larger(b->rho[i], inverse.rho);
        js += log_cosh_half(fabs(b->d[i]), smaller(b->rho[i], inverse.rho));
    }
    *out = (both_ways_sums){reverse_k3, exp_abs_log_ratio, js};
}

/* Response s is tokens offsets[s] up to offsets[s + 1]. `groups` are bits; `out` has the fields of native_result in
   their order, each of all responses, and those of a group that is not asked for are of no tokens. */
void native_sums(const void *logp_mu, const void *logp_pi, int is_float, const uint8_t *counts, const int64_t *offsets,
                 int64_t n_responses, int groups, const native_limits *limits, double *out) {
    block b;
    for (int64_t s = 0; s < n_responses; s++) {
        native_result sums = EMPTY;
        int64_t end = offsets[s + 1];
        for (int64_t begin = offsets[s]; begin < end;) {
            const uint8_t *next = counts ? memchr(counts + begin, 1, end - begin) : NULL;
            if (counts && !next) break; /* padding */
            begin = take(&b, logp_mu, logp_pi, is_float, counts, next ? next - counts : begin, end);
            add_logs(&b, limits, &sums.logs);
            if (groups & RATIOS) add_ratios(&b, limits, &sums.ratios);
            if (groups & WEIGHTS) add_weights(&b, limits, &sums.weights);
            if (groups & PROBABILITIES) add_probabilities(&b, &sums.probabilities);
            if (groups & BOTH_WAYS) add_both_ways(&b, &sums.both_ways);
        }
        double fields[sizeof sums / sizeof(double)];
        memcpy(fields, &sums, sizeof sums);
        for (size_t k = 0; k < sizeof sums / sizeof(double); k++) out[k * n_responses + s] = fields[k];
    }
}
