/* Logarithms in double for loops without calls: compilers vectorise them. */
#ifndef DOUBLE_LOG_H
#define DOUBLE_LOG_H

#include "double_exp.h"

/* (artanh(s) / s - 1) / s^2 for |s| <= 1/3. */
INLINE double artanh_tail(double s2) {
    double sum = 0.034482758620689655;
    sum = sum * s2 + 0.037037037037037035;
    sum = sum * s2 + 0.04;
    sum = sum * s2 + 0.043478260869565216;
    sum = sum * s2 + 0.047619047619047616;
    sum = sum * s2 + 0.05263157894736842;
    sum = sum * s2 + 0.058823529411764705;
    sum = sum * s2 + 0.06666666666666667;
    sum = sum * s2 + 0.07692307692307693;
    sum = sum * s2 + 0.09090909090909091;
    sum = sum * s2 + 0.1111111111111111;
    sum = sum * s2 + 0.14285714285714285;
    sum = sum * s2 + 0.2;
    sum = sum * s2 + 0.3333333333333333;
    return sum;
}

static const double LN2 = 0x1.62e42fefa39efp-1;

/* log z for normal z > 0: z = 2^n m with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)). */
INLINE double logarithm(double z) {
    uint64_t bits;
    memcpy(&bits, &z, sizeof bits);
    uint64_t above = bits - 0x3fe6a09e667f3bcd; /* of sqrt(1/2) */
    int64_t n = (int64_t)above >> 52;
    bits = (above & 0xfffffffffffff) + 0x3fe6a09e667f3bcd;
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1) / (m + 1), s2 = s * s;
    return (double)n * LN2 + 2 * (s + s * s2 * artanh_tail(s2));
}

#endif
