/* The softmax of one row of logits in float, with sums in double: what full.c reads both of its rows through.
 *
 * What keeps its error below 1e-6: the denominator is added up in double, so V does not matter; exp is split off
 * the raw logit, and the shift that keeps it in range is a power of two, which is exact.
 *
 * Every loop is one that compilers vectorise: no calls, no early exit, and no maximum (some compilers want the
 * promise that there is no NaN for it) except in `largest`, which seldom goes far.
 */
#ifndef SOFTMAX_H
#define SOFTMAX_H

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

typedef struct {
    float base;   /* subtracted from each logit: 0, unless they are so large that exp's split needs it */
    float lowest; /* z = logit - base is clamped here, where exp(z) is nothing beside the largest */
    float round;  /* added, it rounds to an integer and leaves the exponent of the result in the low bits */
    float inverse_sum;
    float dead; /* below this logit the probability is zero, in double too: outside the support */
    double logsumexp;
} softmax;

/* A row of log-probabilities that is taken as it is. */
static const softmax NORMALISED = {.lowest = -86, .round = 0x1.8p23f + 127, .inverse_sum = 1, .dead = -745.13f};

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

/* exp(z) times the power of two that `round` holds. */
INLINE float scaled_exp(float z, float round) {
    float rounded = z * LOG2_E + round;
    float n = rounded - round;
    float r = z - n * LN2_UPPER - n * LN2_LOWER;
    return (r * r * curvature(r) + r + 1.0f) * float_of(bits_of(rounded) << 23);
}

/* Of an id in the support, once the sum is known. */
INLINE float probability(float x, const softmax *s) {
    return scaled_exp(clamped(x, s), s->round) * s->inverse_sum;
}

INLINE int64_t block_end(int64_t begin, int64_t V) { return begin + BLOCK < V ? begin + BLOCK : V; }

INLINE float largest(const void *row, int64_t begin, int64_t end, int dtype) {
    float top = -INFINITY;
    for (int64_t i = begin; i < end; i++) {
        float x = logit(row, i, dtype);
        top = x > top ? x : top;
    }
    return top;
}

/* The sum of one row's softmax, scaled to the term of the logit `scale`. Returns 0 if one is far above. */
INLINE int sum_exp(const void *row, int64_t V, int dtype, float scale, softmax *result) {
    softmax s = {.base = fabsf(scale) > 8192 ? scale : 0};
    float top = scale - s.base;
    s.lowest = top - 70; /* not so low that its probability is subnormal: arithmetic with those is slow */
    float exponent = rintf(top * LOG2_E);
    s.round = 0x1.8p23f + 127 - exponent;

    double sum = 0;
    int above = 0;
#pragma omp simd reduction(+ : sum) reduction(| : above)
    for (int64_t i = 0; i < V; i++) {
        float z = clamped(logit(row, i, dtype), &s);
        sum += scaled_exp(z, s.round);
        above |= z > top + 40;
    }
    s.inverse_sum = 1 / sum;
    s.logsumexp = exponent * LN2 + log(sum) + s.base;
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

#endif
