/* Sums over each response of what trainers log of a token and token_sums.c does not have; see native/batch_sums.py,
 * whose numpy is what this is tested against.
 *
 * Legend: d = log pi - log mu of a token, rho = exp(d); `safe` is rho with d clamped to +-exponent.
 */
#include "double_log.h"
#include "token_figures.h"

/* log(1 + e) for e in [0, 1]: 2 artanh(e / (2 + e)). */
INLINE double log_one_plus(double e) {
    double s = e / (2 + e), s2 = s * s;
    return 2 * (s + s * s2 * artanh_tail(s2));
}

/* log cosh(s / 2): k3 of both policies against their mixture, averaged, is that. */
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

/* The layouts are read by numpy: see `_EXTRA` and `_LIMITS` of native/batch_sums.py. */
typedef struct {
    double changed, js, safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above, below, clamped_k3,
        ratio_distance, capped_ratio;
} native_result;

typedef struct {
    double changed, exponent, low, high, k3, cap;
} native_limits;

/* `counts` NULL counts every token. */
void native_sums(const double *logp_mu, const double *logp_pi, const uint8_t *counts, const int64_t *offsets,
                 int64_t n_responses, const native_limits *limits, native_result *out) {
    native_limits l = *limits;
    for (int64_t s = 0; s < n_responses; s++) {
        double changed = 0, js = 0, safe_ratio = 0, square_safe_ratio = 0, ratio_within = 0, square_ratio_within = 0;
        double above = 0, below = 0, clamped_k3 = 0, ratio_distance = 0, capped_ratio = 0;
#pragma omp simd reduction(+ : changed, js, safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above, \
        below, clamped_k3, ratio_distance, capped_ratio)
        for (int64_t i = offsets[s]; i < offsets[s + 1]; i++) {
            int64_t used = counts ? counts[i] : 1;
            double d = used ? logp_pi[i] - logp_mu[i] : 0;
            double clamped = d < -l.exponent ? -l.exponent : d;
            clamped = clamped > l.exponent ? l.exponent : clamped;
            token_figures t = figures_of(0, clamped, 1);
            double size = fabs(d), safe = used ? t.ratio : 0;
            double within = safe < l.low ? l.low : safe;
            within = used ? (within > l.high ? l.high : within) : 0;
            double e = size > -DEAD ? 0 : exponential(-size), far = d > 0 ? growth(size) - 1 : 1 - e;
            changed += size > l.changed ? 1 : 0;
            js += log_cosh_half(size, e);
            safe_ratio += safe;
            square_safe_ratio += safe * safe;
            ratio_within += within;
            square_ratio_within += within * within;
            above += safe > l.high ? 1 : 0;
            below += used & (safe < l.low) ? 1 : 0;
            clamped_k3 += t.k3 < l.k3 ? t.k3 : l.k3;
            ratio_distance += size > l.exponent ? far : t.distance;
            double least = size > l.exponent && d < 0 ? e : safe;
            capped_ratio += least < l.cap ? least : l.cap;
        }
        out[s] = (native_result){changed, js, safe_ratio, square_safe_ratio, ratio_within, square_ratio_within, above,
                                 below, clamped_k3, ratio_distance, capped_ratio};
    }
}
