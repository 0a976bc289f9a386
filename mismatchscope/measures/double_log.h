/* The series that logarithms in double are made of, for loops without calls: compilers vectorise it. */
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

#endif
