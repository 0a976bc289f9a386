/* What one sampled token says of two policies; the definitions are those of sampled.py.
 *
 * Legend: x = log mu and y = log pi of the token, d = y - x, rho = exp(d). Nothing that is nearly equal is subtracted:
 * near d = 0 the figures are series in d, elsewhere they are made of exp |d|.
 */
#ifndef TOKEN_FIGURES_H
#define TOKEN_FIGURES_H

#include "double_exp.h"

typedef struct {
    double d, size;        /* log rho, |log rho| */
    double ratio, inverse; /* rho, exp |d| */
    double k3;             /* rho - 1 - d */
    double shortfall;      /* (1 - rho)_+ */
    double m, p, gap;      /* mu, pi, |pi - mu| of the token */
} token_figures;

/* Of a token of which d and the larger of x and y are known; `used` 0 gives one whose probabilities are 0. */
INLINE token_figures figures_at(double d, double top, int64_t used) {
    double s = fabs(d), s2 = s * s;
    /* (exp(s) - 1 - s) / s^2 is even + s odd, and for -s it is even - s odd. */
    double even = 1.1470745597729725e-11, odd = 7.647163731819816e-13;
    even = even * s2 + 2.08767569878681e-09;
    odd = odd * s2 + 1.6059043836821613e-10;
    even = even * s2 + 2.755731922398589e-07;
    odd = odd * s2 + 2.505210838544172e-08;
    even = even * s2 + 2.48015873015873e-05;
    odd = odd * s2 + 2.7557319223985893e-06;
    even = even * s2 + 0.001388888888888889;
    odd = odd * s2 + 0.0001984126984126984;
    even = even * s2 + 0.041666666666666664;
    odd = odd * s2 + 0.008333333333333333;
    even = even * s2 + 0.5;
    odd = odd * s2 + 0.16666666666666666;
    int64_t near = s < NEAR, falls = d < 0;
    double e = growth(s), inverse_e = 1 / e;
    double far_up = s > HIGHEST ? INFINITY : e - 1 - s;
    double up = near ? s2 * (even + s * odd) : far_up;              /* exp(s) - 1 - s */
    double down = near ? s2 * (even - s * odd) : inverse_e - 1 + s; /* exp(-s) - 1 + s */
    double share = near ? s - down : 1 - inverse_e;                 /* 1 - smaller / larger of the probabilities */
    double larger = used & (top >= DEAD) ? exponential(top) : 0, smaller = larger * inverse_e;
    return (token_figures){
        .d = d,
        .size = s,
        .ratio = falls ? inverse_e : e,
        .inverse = e,
        .k3 = falls ? down : up,
        .shortfall = falls ? share : 0,
        .m = falls ? larger : smaller,
        .p = falls ? smaller : larger,
        .gap = larger * share,
    };
}

/* `used` 0 gives a token that adds nothing to any sum but those of `ratio` and `inverse`, where it is 1. */
INLINE token_figures figures_of(double x, double y, int64_t used) {
    return figures_at(used ? y - x : 0, x > y ? x : y, used);
}

#endif
