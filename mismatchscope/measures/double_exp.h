/* exp and what it differs by from its first terms, in double, for loops without calls: compilers vectorise them.
 *
 * The series are Taylor's, and long enough for double where they are used. `simdlen(8)` of a loop is for compilers that
 * by themselves keep to half of the widest vectors.
 */
#ifndef DOUBLE_EXP_H
#define DOUBLE_EXP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Series in d are used up to here, a little above log(2)/2, the range that exp is reduced to. */
static const double NEAR = 0.35;

static const double DEAD = -745.13; /* below it a probability is zero */
static const double LOWEST = -708;  /* exp's smallest: what lies between is far too small to be seen in a sum */
static const double HIGHEST = 709.782712893384; /* exp's largest */

/* (exp(d) - 1 - d) / d^2 for |d| <= NEAR. */
INLINE double curvature(double d) {
    double sum = 1.6059043836821613e-10;
    sum = sum * d + 2.08767569878681e-09;
    sum = sum * d + 2.505210838544172e-08;
    sum = sum * d + 2.755731922398589e-07;
    sum = sum * d + 2.7557319223985893e-06;
    sum = sum * d + 2.48015873015873e-05;
    sum = sum * d + 0.0001984126984126984;
    sum = sum * d + 0.001388888888888889;
    sum = sum * d + 0.008333333333333333;
    sum = sum * d + 0.041666666666666664;
    sum = sum * d + 0.16666666666666666;
    sum = sum * d + 0.5;
    return sum;
}

/* exp(z) for z <= 1. */
INLINE double exponential(double z) {
    z = z > LOWEST ? z : LOWEST;
    double rounded = z * 0x1.71547652b82fep+0 + (0x1.8p52 + 1023);
    double n = rounded - (0x1.8p52 + 1023);
    double r = z - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33; /* ln 2 in two parts; the product is exact */
    uint64_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    bits <<= 52; /* the power of two, from the low bits of the rounded number */
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return (r * r * curvature(r) + r + 1) * scale;
}

/* exp(s) for s >= 0, up to infinity. */
INLINE double growth(double s) {
    double z = s < HIGHEST ? s : HIGHEST;
    double rounded = z * 0x1.71547652b82fep+0 + (0x1.8p52 + 1022); /* half the power, for the largest does not fit */
    double n = rounded - (0x1.8p52 + 1022);
    double r = z - n * 0x1.62e42feep-1 - n * 0x1.a39ef35793c76p-33;
    uint64_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    bits <<= 52;
    double half;
    memcpy(&half, &bits, sizeof half);
    double power = (r * r * curvature(r) + r + 1) * half * 2;
    return s > HIGHEST ? INFINITY : power;
}

#endif
