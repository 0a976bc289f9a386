/* Every divergence of two policies from two rows of logits or log-probabilities, without an array in between.
 *
 * Legend: mu = behaviour policy, pi = reference policy, V = vocabulary, x = a logit of mu, y = one of pi,
 * m, p = the two probabilities of an id, d = log pi - log mu of it.
 *
 * A row of logits is read from memory once, for its softmax denominator, and again from the cache, for the sums;
 * a row of log-probabilities once.
 *
 * What keeps the error below 1e-6 in float arithmetic: d is the difference of two logits, and |mu - pi| is
 * mu |exp(d) - 1|, so nothing that is nearly equal gets subtracted, and differences of 1e-6 in a logit still have
 * their digits; what must be right in absolute terms is added up in double. See softmax.h for the denominators.
 */
#include "softmax.h"

/* The layout is read by numpy: see `FULL_RESULT` in kernel.py. */
typedef struct {
    double mass_mu, mass_pi, tv, kl, reverse_kl, chi2, js, leak, reverse_leak, entropy_mu, entropy_pi;
    double max_abs_dlogp, max_abs_dlogp_mass, top1_agree, logsumexp_mu, logsumexp_pi;
} full_result;

/* Two rows, and how d is read off them: d = (y - off_pi) - (x - off_mu) - rest. */
typedef struct {
    softmax mu, pi;
    float off_mu, off_pi, rest;
    float zero_mu, zero_pi;   /* logsumexp - base to the nearest whole number, which is exact */
    float floor_mu, floor_pi; /* the logits from which on an id counts for `max_abs_dlogp` */
    float ceiling;            /* a row with a logit above is no row */
} two_rows;

/* What one block adds to the sums of its row. The leaks' share of TV, chi^2 and JS is not in, and in the entropies
   log-probabilities are z less `zero`. */
typedef struct {
    double mass_mu, mass_pi, l1, leak, reverse_leak; /* these must be right to 1e-6, for any width of vector */
    double chi2;                                     /* ... and this can be of any size */
    float kl, reverse_kl, js, entropy_mu, entropy_pi;
    int far, outside_mu, outside_pi, illegal;
} block_sums;

INLINE float log_ratio(float x, float y, const two_rows *rows) {
    return (y - rows->off_pi) - (x - rows->off_mu) - rows->rest;
}

/* JS = sum (m + p) w(d), w = (t |d| + log(1 - t^2)) / 4 with t = tanh(|d| / 2). Here w / d^2 for |d| <= NEAR. */
INLINE float js_curvature(float d2) {
    return (0x1.be5a0cp-11f * d2 - 0x1.fff32ep-8f) * d2 + 0x1.fffffep-5f;
}

/* w for larger |d|, with e = exp(-|d|): (log 2 - log(1 + e) - |d| e / (1 + e)) / 2. */
INLINE float js_weight(float size, float e) {
    float s = e / (2 + e), s2 = s * s; /* log(1 + e) = 2 artanh(s) */
    float artanh = s * (((0x1.46533p-3f * s2 + 0x1.981eaap-3f) * s2 + 0x1.5557f4p-2f) * s2 + 1.0f);
    return (float)(LN2 / 2) - artanh - 0.5f * size * e / (1.0f + e);
}

/* Of no use if it says `far`: some |d| is not below NEAR. */
INLINE block_sums near_sums(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t begin, int64_t end,
                            const two_rows *rows) {
    double mass_mu = 0, mass_pi = 0, l1 = 0;
    float kl = 0, reverse_kl = 0, chi2 = 0, js = 0, entropy_mu = 0, entropy_pi = 0;
    int far = 0;
#pragma omp simd reduction(+ : mass_mu, mass_pi, l1, kl, reverse_kl, chi2, js, entropy_mu, entropy_pi) \
    reduction(| : far)
    for (int64_t i = begin; i < end; i++) {
        float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype);
        float d = log_ratio(x, y, rows), d2 = d * d;
        float z_mu = clamped(x, &rows->mu), z_pi = clamped(y, &rows->pi);
        float m = scaled_exp(z_mu, rows->mu.round) * rows->mu.inverse_sum;
        float curve = d2 * curvature(d), growth = d + curve; /* exp(d) - 1 - d, exp(d) - 1 */
        float gap = m * growth, p = m + gap;
        mass_mu += m;
        mass_pi += p;
        l1 += fabsf(gap);
        kl += m * curve;
        reverse_kl += gap * d - m * curve;
        chi2 += gap * growth;
        js += (m + p) * (d2 * js_curvature(d2));
        entropy_mu -= m * (z_mu - rows->zero_mu);
        entropy_pi -= p * (z_pi - rows->zero_pi);
        far |= !(fabsf(d) < NEAR);
    }
    return (block_sums){mass_mu, mass_pi, l1, 0, 0, chi2, kl, reverse_kl, js, entropy_mu, entropy_pi, far, 0, 0, 0};
}

/* For a block where a term may be outside float's range. */
static double chi2_in_double(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t begin, int64_t end,
                             const two_rows *rows) {
    double chi2 = 0;
    for (int64_t i = begin; i < end; i++) {
        float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype);
        if (x < rows->mu.dead || y < rows->pi.dead) continue;
        double logp_mu = x - rows->mu.logsumexp, logp_pi = y - rows->pi.logsumexp, d = logp_pi - logp_mu;
        double gap = expm1(-fabs(d));
        chi2 += exp(d > 0 ? logp_pi + d : logp_mu) * gap * gap;
    }
    return chi2;
}

INLINE block_sums far_sums(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t begin, int64_t end,
                           const two_rows *rows) {
    double mass_mu = 0, mass_pi = 0, l1 = 0, leak = 0, reverse_leak = 0;
    float kl = 0, reverse_kl = 0, chi2 = 0, js = 0, entropy_mu = 0, entropy_pi = 0;
    int far = 0, outside_mu = 0, outside_pi = 0, illegal = 0, large = 0;
#pragma omp simd reduction(+ : mass_mu, mass_pi, l1, kl, reverse_kl, chi2, js, entropy_mu, entropy_pi) \
    reduction(+ : leak, reverse_leak) reduction(| : far, outside_mu, outside_pi, illegal, large)
    for (int64_t i = begin; i < end; i++) {
        float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype), d = log_ratio(x, y, rows);
        int dead_mu = x < rows->mu.dead, dead_pi = y < rows->pi.dead;
        far |= !(fabsf(d) < NEAR);
        int rises = d > 0; /* before d is set to 0: the side that is alive has the larger probability */
        d = dead_mu | dead_pi ? 0 : d;
        float d2 = d * d, size = fabsf(d);
        int near = size < NEAR;
        float z_mu = clamped(x, &rows->mu), z_pi = clamped(y, &rows->pi);
        float larger = scaled_exp(rises ? z_pi : z_mu, rises ? rows->pi.round : rows->mu.round);
        larger *= rises ? rows->pi.inverse_sum : rows->mu.inverse_sum;
        float e = probability(-size, &NORMALISED), smaller = larger * e;
        float m = dead_mu ? 0 : rises ? smaller : larger, p = dead_pi ? 0 : rises ? larger : smaller;
        float curve = d2 * curvature(d), growth = d + curve;
        float gap = near ? m * growth : copysignf(larger * (1 - e), d);
        gap = dead_mu | dead_pi ? 0 : gap;
        mass_mu += m;
        mass_pi += p;
        l1 += fabsf(gap);
        kl += near ? m * curve : gap - m * d;
        reverse_kl += near ? gap * d - m * curve : p * d - gap;
        chi2 += near ? gap * growth : (1 - e) * (1 - e) * (rises ? larger / e : larger);
        js += (m + p) * (near ? d2 * js_curvature(d2) : js_weight(size, e));
        leak += dead_mu ? p : 0;
        reverse_leak += dead_pi ? m : 0;
        entropy_mu -= m * (z_mu - rows->zero_mu);
        entropy_pi -= p * (z_pi - rows->zero_pi);
        outside_mu |= dead_mu & (dead_pi ^ 1);
        outside_pi |= dead_pi & (dead_mu ^ 1);
        illegal |= !((x < INFINITY) & (y < INFINITY));
        large |= d > 40; /* larger / e may be outside float's range */
    }
    double all_chi2 = large ? chi2_in_double(mu, mu_dtype, pi, pi_dtype, begin, end, rows) : chi2;
    return (block_sums){mass_mu, mass_pi, l1, leak, reverse_leak, all_chi2, kl, reverse_kl, js,
                        entropy_mu, entropy_pi, far, outside_mu, outside_pi, illegal};
}

/* Adds the ids that a side gives the floor or more to max |d| and to the mass that it looked at. */
INLINE void look_at_likely(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t begin, int64_t end,
                           const two_rows *rows, full_result *out) {
    double mass = 0;
#pragma omp simd reduction(+ : mass)
    for (int64_t i = begin; i < end; i++) {
        float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype);
        int counts = ((x >= rows->floor_mu) | (y >= rows->floor_pi)) & (x >= rows->mu.dead);
        float m = probability(counts ? x : rows->floor_mu, &rows->mu); /* never subnormal, which would be slow */
        mass += counts ? m : 0;
    }
    /* In a loop of its own: beside the sum, GCC 12 loses part of the maximum where the two rows differ in width. */
    int32_t largest_bits = -1; /* floats that are not negative are in the order of their bits */
#pragma omp simd reduction(max : largest_bits)
    for (int64_t i = begin; i < end; i++) {
        float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype);
        int likely = (x >= rows->floor_mu) | (y >= rows->floor_pi);
        int dead = (x < rows->mu.dead) | (y < rows->pi.dead);
        int32_t bits = bits_of(dead ? INFINITY : fabsf(log_ratio(x, y, rows)));
        bits = likely ? bits : -1;
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    out->max_abs_dlogp_mass += mass;
    if (largest_bits < 0) return;
    out->max_abs_dlogp = fmax(out->max_abs_dlogp, float_of(largest_bits)); /* fmax passes NaN, the start, over */
}

INLINE int64_t first_of(const void *row, int64_t i, float value, int dtype) {
    while (logit(row, i, dtype) != value) i++;
    return i;
}

INLINE void row_divergences(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t V,
                            const two_rows *rows, full_result *out) {
    full_result sum = {.max_abs_dlogp = NAN};
    float top_mu = -INFINITY, top_pi = -INFINITY;
    int64_t top_block_mu = 0, top_block_pi = 0;
    int far = 0, outside_mu = 0, outside_pi = 0, illegal = 0;
    /* Backwards: the end of both rows is what the softmax has left in the cache. */
    for (int64_t begin = (V - 1) / BLOCK * BLOCK; begin >= 0; begin -= BLOCK) {
        int64_t end = block_end(begin, V);
        int likely = 0, high_mu = 0, high_pi = 0;
#pragma omp simd reduction(| : likely, high_mu, high_pi)
        for (int64_t i = begin; i < end; i++) {
            float x = logit(mu, i, mu_dtype), y = logit(pi, i, pi_dtype);
            likely |= (x >= rows->floor_mu) | (y >= rows->floor_pi);
            high_mu |= x >= top_mu; /* of equal ones the first counts, which comes last */
            high_pi |= y >= top_pi;
        }
        if (likely) look_at_likely(mu, mu_dtype, pi, pi_dtype, begin, end, rows, &sum);
        if (high_mu) top_mu = largest(mu, begin, end, mu_dtype), top_block_mu = begin;
        if (high_pi) top_pi = largest(pi, begin, end, pi_dtype), top_block_pi = begin;

        block_sums block = {.far = 1};
        /* Unless the last block says that it is of no use. */
        if (!far) block = near_sums(mu, mu_dtype, pi, pi_dtype, begin, end, rows);
        if (block.far) block = far_sums(mu, mu_dtype, pi, pi_dtype, begin, end, rows);
        far = block.far;
        outside_mu |= block.outside_mu;
        outside_pi |= block.outside_pi;
        illegal |= block.illegal;
        sum.mass_mu += block.mass_mu;
        sum.mass_pi += block.mass_pi;
        sum.tv += block.l1 / 2;
        sum.kl += block.kl;
        sum.reverse_kl += block.reverse_kl;
        sum.chi2 += block.chi2;
        sum.js += block.js;
        sum.leak += block.leak;
        sum.reverse_leak += block.reverse_leak;
        sum.entropy_mu += block.entropy_mu;
        sum.entropy_pi += block.entropy_pi;
    }
    *out = sum;
    out->tv = fmin(sum.tv + (sum.leak + sum.reverse_leak) / 2, 1); /* rounding can lift it to 1 + 1e-7 */
    out->kl = outside_pi ? INFINITY : sum.kl + sum.leak;
    out->reverse_kl = outside_mu ? INFINITY : sum.reverse_kl + sum.reverse_leak;
    out->chi2 = outside_mu ? INFINITY : sum.chi2 + sum.reverse_leak;
    out->js = sum.js + LN2 / 2 * (sum.leak + sum.reverse_leak);
    out->logsumexp_mu = rows->mu.logsumexp;
    out->logsumexp_pi = rows->pi.logsumexp;
    out->entropy_mu += (rows->mu.logsumexp - rows->mu.base - rows->zero_mu) * sum.mass_mu;
    out->entropy_pi += (rows->pi.logsumexp - rows->pi.base - rows->zero_pi) * sum.mass_pi;
    if (illegal || top_mu > rows->ceiling || top_pi > rows->ceiling) out->mass_mu = NAN;
    else out->top1_agree = first_of(mu, top_block_mu, top_mu, mu_dtype) == first_of(pi, top_block_pi, top_pi, pi_dtype);
}

/* The smallest float that is not below. */
INLINE float round_up(double x) {
    float f = x;
    return f < x ? nextafterf(f, INFINITY) : f;
}

INLINE void logit_row(const void *mu, int mu_dtype, const void *pi, int pi_dtype, int64_t V, double floor,
                      full_result *out) {
    two_rows rows = {.ceiling = INFINITY};
    if (!normalise(mu, V, mu_dtype, &rows.mu) || !normalise(pi, V, pi_dtype, &rows.pi)) {
        out->mass_mu = NAN;
        return;
    }
    /* d = (y - logsumexp_pi) - (x - logsumexp_mu). Where the scales differ (log-probabilities on one side, say) a
       whole number comes off the side that is larger first, which is exact. Mostly it is zero. */
    double shift = rows.pi.logsumexp - rows.mu.logsumexp;
    int mu_is_larger = fabs(rows.mu.logsumexp) > fabs(rows.pi.logsumexp);
    rows.off_mu = mu_is_larger ? -rint(shift) : 0;
    rows.off_pi = mu_is_larger ? 0 : rint(shift);
    rows.rest = (rows.pi.logsumexp - rows.off_pi) - (rows.mu.logsumexp - rows.off_mu);
    rows.zero_mu = rint(rows.mu.logsumexp - rows.mu.base);
    rows.zero_pi = rint(rows.pi.logsumexp - rows.pi.base);
    rows.floor_mu = round_up(rows.mu.logsumexp + floor);
    rows.floor_pi = round_up(rows.pi.logsumexp + floor);
    row_divergences(mu, mu_dtype, pi, pi_dtype, V, &rows, out);
}

/* Strides are in bytes, from one row to the next. `floor` is the log-probability from which on an id counts for
   `max_abs_dlogp`. A row that has no divergence (NaN, +inf, nothing but -inf) gets a `mass_mu` of NaN. */
void logit_divergences(const char *mu, int64_t mu_stride, int mu_dtype, const char *pi, int64_t pi_stride,
                       int pi_dtype, int64_t n_rows, int64_t V, double floor, full_result *out) {
    for (int64_t row = 0; row < n_rows; row++, mu += mu_stride, pi += pi_stride, out++) {
        /* One copy of the loops for each pair of types. */
        if (mu_dtype == FLOAT32 && pi_dtype == FLOAT32) logit_row(mu, FLOAT32, pi, FLOAT32, V, floor, out);
        else if (mu_dtype == FLOAT32) logit_row(mu, FLOAT32, pi, BFLOAT16, V, floor, out);
        else if (pi_dtype == FLOAT32) logit_row(mu, BFLOAT16, pi, FLOAT32, V, floor, out);
        else logit_row(mu, BFLOAT16, pi, BFLOAT16, V, floor, out);
    }
}

/* The same for float rows of log-probabilities, taken as they are: `mass_mu` and `mass_pi` tell how far from
   normalised they are. */
void logp_divergences(const char *mu, int64_t mu_stride, const char *pi, int64_t pi_stride, int64_t n_rows, int64_t V,
                      double floor, full_result *out) {
    float lowest = round_up(floor);
    two_rows rows = {NORMALISED, NORMALISED, .floor_mu = lowest, .floor_pi = lowest, .ceiling = 1};
    for (int64_t row = 0; row < n_rows; row++, mu += mu_stride, pi += pi_stride, out++)
        row_divergences(mu, FLOAT32, pi, FLOAT32, V, &rows, out);
}
