/* Divergences of two policies from two rows, without an array between the passes: TV and both KLs from logits
 * (`fused_divergences`), every divergence from log-probabilities (`full_divergences`, at the end).
 *
 * Legend: mu = behaviour policy, pi = reference policy, V = vocabulary, x = a logit or log-probability of mu,
 * y = one of pi, d = log pi - log mu of one id.
 *
 * A row of logits is read from memory once, for the softmax denominators, and again from the cache, for the
 * sums of TV and KL; a row of log-probabilities once. Every loop is one that compilers vectorise: no calls, no
 * early exit, and no maximum (some compilers want the promise that there is no NaN for it) except in `largest`,
 * which seldom goes far.
 *
 * What keeps the error below 1e-6 in float32 arithmetic:
 *   - denominators and TV are added up in double, so V does not matter;
 *   - exp is split off the raw logit, and the shift that keeps it in range is a power of two, which is exact;
 *   - d is the difference of two logits, and |mu - pi| is mu |exp(d) - 1|: nothing that is nearly equal gets
 *     subtracted, so differences of 1e-6 in a logit still have their digits.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { FLOAT32 = 0, BFLOAT16 = 1 };

enum { BLOCK = 512 }; /* ids whose terms are added up in float before they go into a double */

/* exp(d) - 1 is a polynomial up to here, a little above log(2)/2, the range that exp is reduced to. */
static const float NEAR = 0.35f;

static const float LOG2_E = 0x1.715476p+0f;
static const double LN2 = 0x1.62e42fefa39efp-1;
/* ln 2 in two parts; the upper has nine bits, so that its product with the integer below is exact. */
static const float LN2_UPPER = 0x1.63p-1f, LN2_LOWER = -0x1.bd0106p-13f;

/* The layout is read by numpy: see `_RESULT` in fused.py. */
typedef struct {
    double tv, kl, reverse_kl, leak, logsumexp_mu, logsumexp_pi, entropy_mu, entropy_pi;
} divergences;

typedef struct {
    float base;   /* subtracted from each logit: 0, unless they are so large that exp's split needs it */
    float lowest; /* z = logit - base is clamped here, where exp(z) is nothing beside the largest */
    float round;  /* added, it rounds to an integer and leaves the exponent of the result in the low bits */
    float inverse_sum;
    float dead; /* below this logit the probability is zero, in double too: outside the support */
    double logsumexp, entropy;
} softmax;

INLINE uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

INLINE float float_of(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE float logit(const void *row, int64_t i, int dtype) {
    if (dtype == BFLOAT16) return float_of((uint32_t)((const uint16_t *)row)[i] << 16);
    return ((const float *)row)[i];
}

/* (exp(x) - 1 - x) / x^2 for |x| <= NEAR, relative error 1.4e-7 (interpolated at Chebyshev's points). */
INLINE float curvature(float x) {
    return (((0x1.6d15f8p-10f * x + 0x1.12105cp-7f) * x + 0x1.555516p-5f) * x + 0x1.5554d8p-3f) * x + 0.5f;
}

INLINE float clamped(float x, const softmax *s) {
    float z = x - s->base;
    return s->lowest > z ? s->lowest : z; /* in this order NaN stays NaN */
}

/* exp(z) times the power of two that brings the largest near 1. */
INLINE float scaled_exp(float z, const softmax *s) {
    float rounded = z * LOG2_E + s->round;
    float n = rounded - s->round;
    float r = z - n * LN2_UPPER - n * LN2_LOWER;
    return (r * r * curvature(r) + r + 1.0f) * float_of(bits_of(rounded) << 23);
}

/* Of an id in the support, once the sum is known. */
INLINE float probability(float x, const softmax *s) { return scaled_exp(clamped(x, s), s) * s->inverse_sum; }

INLINE int64_t block_end(int64_t begin, int64_t V) { return begin + BLOCK < V ? begin + BLOCK : V; }

INLINE float largest(const void *row, int64_t begin, int64_t end, int dtype) {
    float top = -INFINITY;
    for (int64_t i = begin; i < end; i++) {
        float x = logit(row, i, dtype);
        top = x > top ? x : top;
    }
    return top;
}

/* The sums of one row's softmax, scaled to the term of the logit `scale`. Returns 0 if one is far above. */
INLINE int sum_exp(const void *row, int64_t V, int dtype, float scale, softmax *result) {
    softmax s = {.base = fabsf(scale) > 8192 ? scale : 0};
    float top = scale - s.base;
    s.lowest = top - 86;
    float exponent = rintf(top * LOG2_E);
    s.round = 0x1.8p23f + 127 - exponent;

    double sum = 0, weighted = 0;
    int above = 0;
    for (int64_t begin = 0; begin < V; begin += BLOCK) {
        int64_t end = block_end(begin, V);
        float block_weighted = 0;
#pragma omp simd reduction(+ : sum, block_weighted) reduction(| : above)
        for (int64_t i = begin; i < end; i++) {
            float z = clamped(logit(row, i, dtype), &s);
            float e = scaled_exp(z, &s);
            sum += e;
            block_weighted += e * (z - top);
            above |= z > top + 40;
        }
        weighted += block_weighted;
    }
    double log_sum = exponent * LN2 + log(sum);
    s.inverse_sum = 1 / sum;
    s.logsumexp = log_sum + s.base;
    s.entropy = log_sum - top - weighted / sum;
    s.dead = s.logsumexp - 745.13;
    *result = s;
    return !above;
}

/* Returns 0 if the row holds NaN or +inf, or nothing but -inf. */
INLINE int normalise(const void *row, int64_t V, int dtype, softmax *s) {
    /* The largest of the first block with a support is nearly always within 40 of the largest of all. */
    float top = -INFINITY;
    for (int64_t i = 0; i < V && top == -INFINITY; i += BLOCK) top = largest(row, i, block_end(i, V), dtype);
    if (!isfinite(top)) return 0;
    if (!sum_exp(row, V, dtype, top, s)) {
        top = largest(row, 0, V, dtype);
        if (!isfinite(top)) return 0;
        sum_exp(row, V, dtype, top, s);
    }
    return isfinite(s->logsumexp);
}

INLINE void row_divergences(const void *mu_row, int mu_dtype, const void *pi_row, int pi_dtype, int64_t V,
                            divergences *out) {
    softmax mu, pi;
    if (!normalise(mu_row, V, mu_dtype, &mu) || !normalise(pi_row, V, pi_dtype, &pi)) {
        *out = (divergences){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
        return;
    }
    /* d = (y - logsumexp_pi) - (x - logsumexp_mu). Where the scales differ (log-probabilities on one side,
       say) a whole number comes off the side that is larger first, which is exact. Mostly it is zero. */
    double shift = pi.logsumexp - mu.logsumexp;
    int mu_is_larger = fabs(mu.logsumexp) > fabs(pi.logsumexp);
    float off_mu = mu_is_larger ? -rint(shift) : 0, off_pi = mu_is_larger ? 0 : rint(shift);
    float rest = (pi.logsumexp - off_pi) - (mu.logsumexp - off_mu);
    double l1 = 0, kl = 0, reverse_kl = 0, leak = 0;
    int far = 0, outside_mu = 0, outside_pi = 0;
    /* Backwards: the end of both rows is what the two passes above have left in the cache. */
    for (int64_t begin = (V - 1) / BLOCK * BLOCK; begin >= 0; begin -= BLOCK) {
        int64_t end = block_end(begin, V);
        float block_kl = 0, block_reverse = 0, block_leak = 0;
        double block_l1 = 0;
        if (!far) { /* unless the last block says that it is of no use */
#pragma omp simd reduction(+ : block_l1, block_kl, block_reverse) reduction(| : far)
            for (int64_t i = begin; i < end; i++) {
                float x = logit(mu_row, i, mu_dtype), y = logit(pi_row, i, pi_dtype);
                float d = (y - off_pi) - (x - off_mu) - rest;
                float m = probability(x, &mu);
                float curve = d * d * curvature(d); /* exp(d) - 1 - d */
                float gap = m * (d + curve);        /* pi - mu */
                block_l1 += fabsf(gap);
                block_kl += m * curve;
                block_reverse += gap * d - m * curve;
                far |= !(fabsf(d) < NEAR);
            }
        }
        if (far) {
            far = 0;
            block_l1 = block_kl = block_reverse = 0;
#pragma omp simd reduction(+ : block_l1, block_kl, block_reverse, block_leak) \
    reduction(| : far, outside_mu, outside_pi)
            for (int64_t i = begin; i < end; i++) {
                float x = logit(mu_row, i, mu_dtype), y = logit(pi_row, i, pi_dtype);
                int dead_mu = x < mu.dead, dead_pi = y < pi.dead;
                float m = dead_mu ? 0 : probability(x, &mu), p = dead_pi ? 0 : probability(y, &pi);
                float d = (y - off_pi) - (x - off_mu) - rest;
                int near = fabsf(d) < NEAR;
                d = dead_mu | dead_pi ? 0 : d;
                float curve = d * d * curvature(d);
                float gap = near ? m * (d + curve) : p - m;
                block_l1 += fabsf(gap);
                block_kl += near ? m * curve : gap - m * d;
                block_reverse += near ? gap * d - m * curve : p * d - gap;
                block_leak += dead_mu ? p : 0;
                far |= near ^ 1;
                outside_mu |= dead_mu & (dead_pi ^ 1);
                outside_pi |= dead_pi & (dead_mu ^ 1);
            }
        }
        l1 += block_l1;
        kl += block_kl;
        reverse_kl += block_reverse;
        leak += block_leak;
    }
    *out = (divergences){
        .tv = fmin(l1 / 2, 1), /* rounding can lift disjoint supports to 1 + 1e-7 */
        .kl = outside_pi ? INFINITY : kl,
        .reverse_kl = outside_mu ? INFINITY : reverse_kl,
        .leak = fmin(leak, 1),
        .logsumexp_mu = mu.logsumexp,
        .logsumexp_pi = pi.logsumexp,
        .entropy_mu = mu.entropy,
        .entropy_pi = pi.entropy,
    };
}

/* Strides are in bytes, from one row to the next. A row that has no divergence is filled with NaN. */
void fused_divergences(const char *mu, int64_t mu_stride, int mu_dtype, const char *pi, int64_t pi_stride,
                       int pi_dtype, int64_t rows, int64_t V, divergences *out) {
    for (int64_t row = 0; row < rows; row++, mu += mu_stride, pi += pi_stride, out++) {
        /* One copy of the loops for each pair of types. */
        if (mu_dtype == FLOAT32 && pi_dtype == FLOAT32) row_divergences(mu, FLOAT32, pi, FLOAT32, V, out);
        else if (mu_dtype == FLOAT32) row_divergences(mu, FLOAT32, pi, BFLOAT16, V, out);
        else if (pi_dtype == FLOAT32) row_divergences(mu, BFLOAT16, pi, FLOAT32, V, out);
        else row_divergences(mu, BFLOAT16, pi, BFLOAT16, V, out);
    }
}

/* --- Every divergence, of rows that are normalised ---------------------------------------------------------- */

/* A log-probability is taken as it is: its softmax has nothing to scale. */
static const softmax UNIT = {.lowest = -86, .round = 0x1.8p23f + 127, .inverse_sum = 1, .dead = -745.13f};

/* The layout is read by numpy: see `_RESULT` in divergences.py. */
typedef struct {
    double mass_mu, mass_pi, tv, kl, reverse_kl, chi2, js, leak, reverse_leak, entropy_mu, entropy_pi;
    double max_abs_dlogp, max_abs_dlogp_mass, top1_agree;
} full_result;

/* What one block adds to the sums of its row. The leaks' share of TV, chi^2 and JS is not in. */
typedef struct {
    double mass_mu, mass_pi, l1, leak, reverse_leak; /* these must be right to 1e-6, for any width of vector */
    double chi2;                                     /* ... and this can be of any size */
    float kl, reverse_kl, js, entropy_mu, entropy_pi;
    int far, outside_mu, outside_pi, illegal;
} block_sums;

/* JS = sum (mu + pi) w(d), w = (t |d| + log(1 - t^2)) / 4 with t = tanh(|d| / 2). Here w / d^2 for |d| <= NEAR. */
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
INLINE block_sums near_sums(const float *mu, const float *pi, int64_t begin, int64_t end) {
    double mass_mu = 0, mass_pi = 0, l1 = 0;
    float kl = 0, reverse_kl = 0, chi2 = 0, js = 0, entropy_mu = 0, entropy_pi = 0;
    int far = 0;
#pragma omp simd reduction(+ : mass_mu, mass_pi, l1, kl, reverse_kl, chi2, js, entropy_mu, entropy_pi) \
    reduction(| : far)
    for (int64_t i = begin; i < end; i++) {
        float d = pi[i] - mu[i], d2 = d * d, x = clamped(mu[i], &UNIT);
        float m = scaled_exp(x, &UNIT);
        float curve = d2 * curvature(d), growth = d + curve; /* exp(d) - 1 - d, exp(d) - 1 */
        float gap = m * growth, p = m + gap;
        mass_mu += m;
        mass_pi += p;
        l1 += fabsf(gap);
        kl += m * curve;
        reverse_kl += gap * d - m * curve;
        chi2 += gap * growth;
        js += (m + p) * (d2 * js_curvature(d2));
        entropy_mu -= m * x;
        entropy_pi -= p * (x + d);
        far |= !(fabsf(d) < NEAR);
    }
    return (block_sums){mass_mu, mass_pi, l1, 0, 0, chi2, kl, reverse_kl, js, entropy_mu, entropy_pi, far, 0, 0, 0};
}

/* For a block where a term may be outside float's range. */
static double chi2_in_double(const float *mu, const float *pi, int64_t begin, int64_t end) {
    double chi2 = 0;
    for (int64_t i = begin; i < end; i++) {
        if (mu[i] < UNIT.dead || pi[i] < UNIT.dead || pi[i] == mu[i]) continue;
        double d = (double)pi[i] - mu[i], gap = expm1(-fabs(d));
        chi2 += exp(d > 0 ? pi[i] + d : mu[i]) * gap * gap;
    }
    return chi2;
}

INLINE block_sums far_sums(const float *mu, const float *pi, int64_t begin, int64_t end) {
    double mass_mu = 0, mass_pi = 0, l1 = 0, leak = 0, reverse_leak = 0;
    float kl = 0, reverse_kl = 0, chi2 = 0, js = 0, entropy_mu = 0, entropy_pi = 0;
    int far = 0, outside_mu = 0, outside_pi = 0, illegal = 0, large = 0;
#pragma omp simd reduction(+ : mass_mu, mass_pi, l1, kl, reverse_kl, chi2, js, entropy_mu, entropy_pi) \
    reduction(+ : leak, reverse_leak) reduction(| : far, outside_mu, outside_pi, illegal, large)
    for (int64_t i = begin; i < end; i++) {
        float x = mu[i], y = pi[i], d = y - x;
        int dead_mu = x < UNIT.dead, dead_pi = y < UNIT.dead;
        far |= !(fabsf(d) < NEAR);
        d = dead_mu | dead_pi ? 0 : d;
        float d2 = d * d, size = fabsf(d);
        int near = size < NEAR, rises = d > 0;
        float larger = probability(x > y ? x : y, &UNIT), e = probability(-size, &UNIT), smaller = larger * e;
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
        entropy_mu -= m * clamped(x, &UNIT);
        entropy_pi -= p * clamped(y, &UNIT);
        outside_mu |= dead_mu & (dead_pi ^ 1);
        outside_pi |= dead_pi & (dead_mu ^ 1);
        illegal |= !((x < INFINITY) & (y < INFINITY));
        large |= d > 40; /* larger / e may be outside float's range */
    }
    double all_chi2 = large ? chi2_in_double(mu, pi, begin, end) : chi2;
    return (block_sums){mass_mu, mass_pi, l1, leak, reverse_leak, all_chi2, kl, reverse_kl, js,
                        entropy_mu, entropy_pi, far, outside_mu, outside_pi, illegal};
}

/* Adds the ids that a side gives exp(`floor`) or more to max |d| and to the mass that it looked at. */
INLINE void look_at_likely(const float *mu, const float *pi, int64_t begin, int64_t end, float floor,
                           full_result *out) {
    double mass = 0;
    int32_t largest_bits = -1; /* floats that are not negative are in the order of their bits */
#pragma omp simd reduction(+ : mass) reduction(max : largest_bits)
    for (int64_t i = begin; i < end; i++) {
        float x = mu[i], y = pi[i];
        int likely = (x >= floor) | (y >= floor), dead_mu = x < UNIT.dead, dead_pi = y < UNIT.dead;
        int32_t bits = bits_of(dead_mu | dead_pi ? INFINITY : fabsf(y - x));
        bits = likely ? bits : -1;
        largest_bits = bits > largest_bits ? bits : largest_bits;
        mass += likely & (dead_mu ^ 1) ? probability(x, &UNIT) : 0;
    }
    out->max_abs_dlogp_mass += mass;
    if (largest_bits < 0) return;
    out->max_abs_dlogp = fmax(out->max_abs_dlogp, float_of(largest_bits)); /* fmax passes NaN, the start, over */
}

INLINE int64_t first_of(const float *row, int64_t i, float value) {
    while (row[i] != value) i++;
    return i;
}

static void full_row(const float *mu, const float *pi, int64_t V, float floor, full_result *out) {
    full_result sum = {.max_abs_dlogp = NAN};
    float top_mu = -INFINITY, top_pi = -INFINITY;
    int64_t top_block_mu = 0, top_block_pi = 0;
    int far = 0, outside_mu = 0, outside_pi = 0, illegal = 0;
    for (int64_t begin = 0; begin < V; begin += BLOCK) {
        int64_t end = block_end(begin, V);
        int likely = 0, higher_mu = 0, higher_pi = 0;
#pragma omp simd reduction(| : likely, higher_mu, higher_pi)
        for (int64_t i = begin; i < end; i++) {
            likely |= (mu[i] >= floor) | (pi[i] >= floor);
            higher_mu |= mu[i] > top_mu;
            higher_pi |= pi[i] > top_pi;
        }
        if (likely) look_at_likely(mu, pi, begin, end, floor, &sum);
        if (higher_mu) top_mu = largest(mu, begin, end, FLOAT32), top_block_mu = begin;
        if (higher_pi) top_pi = largest(pi, begin, end, FLOAT32), top_block_pi = begin;

        block_sums block = {.far = 1};
        if (!far) block = near_sums(mu, pi, begin, end); /* unless the last block says that it is of no use */
        if (block.far) block = far_sums(mu, pi, begin, end);
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
    out->tv = fmin(sum.tv + (sum.leak + sum.reverse_leak) / 2, 1);
    out->kl = outside_pi ? INFINITY : sum.kl + sum.leak;
    out->reverse_kl = outside_mu ? INFINITY : sum.reverse_kl + sum.reverse_leak;
    out->chi2 = outside_mu ? INFINITY : sum.chi2 + sum.reverse_leak;
    out->js = sum.js + LN2 / 2 * (sum.leak + sum.reverse_leak);
    if (illegal || top_mu > 1 || top_pi > 1) out->mass_mu = NAN;
    else out->top1_agree = first_of(mu, top_block_mu, top_mu) == first_of(pi, top_block_pi, top_pi);
}

/* Strides are in bytes. `floor` is the log-probability from which on an id counts for `max_abs_dlogp`. The masses
   tell whether to trust a row: one of them is not 1 where it is not normalised, and NaN where it is no row at all. */
void full_divergences(const char *mu, int64_t mu_stride, const char *pi, int64_t pi_stride, int64_t rows, int64_t V,
                      float floor, full_result *out) {
    for (int64_t row = 0; row < rows; row++, mu += mu_stride, pi += pi_stride, out++)
        full_row((const float *)mu, (const float *)pi, V, floor, out);
}
