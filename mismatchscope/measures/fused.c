/* Divergences of two policies from two rows of logits, without an array between the passes.
 *
 * Legend: mu = behaviour policy, pi = reference policy, V = vocabulary, x = a logit of mu, y = one of pi,
 * d = log pi - log mu of one id.
 *
 * A row of each side is read from memory once, for the softmax denominators, and again from the cache, for
 * the sums of TV and KL. Every loop is one that compilers vectorise: no calls, no early exit, and no maximum
 * (some compilers want the promise that there is no NaN for it) except in `largest`, which seldom goes far.
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
