/* What the observed ids of one state add to each divergence; what topk.py makes of them is said there.
 *
 * Legend: mu = behaviour policy, pi = reference policy, K = observed ids, x = log mu and y = log pi of an id,
 * m, p = its probabilities, d = y - x. The formulas are those of cells.py, whose comments say why no term cancels.
 *
 * The loop has no calls and no branches, so that compilers vectorise it.
 */
#include "double_log.h"

static const double HALF_LN2 = 0.34657359027997264;

/* The layout is read by numpy: see `TOPK_RESULT` in kernel.py. */
typedef struct {
    double mass_mu, mass_pi, tv, kl, reverse_kl, js, leak;
} topk_result;

/* JS = sum (m + p) w(d), w = (t |d| + log(1 - t^2)) / 4 with t = tanh(|d| / 2). Here w / d^2 for |d| <= NEAR. */
INLINE double js_curvature(double d2) {
    double sum = 1.0628664754311203e-09;
    sum = sum * d2 + -1.0412938979039085e-08;
    sum = sum * d2 + 1.0179283027745329e-07;
    sum = sum * d2 + -9.91776436654909e-07;
    sum = sum * d2 + 9.61061507936508e-06;
    sum = sum * d2 + -9.223090277777778e-05;
    sum = sum * d2 + 0.0008680555555555555;
    sum = sum * d2 + -0.0078125;
    sum = sum * d2 + 0.0625;
    return sum;
}

/* artanh(s) / s for s <= 0.27. */
INLINE double artanh_over_s(double s2) { return 1 + s2 * artanh_tail(s2); }

/* w for larger |d|, with e = exp(-|d|): (log 2 - log(1 + e) - |d| e / (1 + e)) / 2. */
INLINE double js_weight(double size, double e) {
    double s = e / (2 + e); /* log(1 + e) = 2 artanh(s) */
    return HALF_LN2 - s * artanh_over_s(s * s) - 0.5 * size * e / (1 + e);
}

static topk_result row_sums(const double *logp_mu, const double *logp_pi, int64_t K) {
    double mass_mu = 0, mass_pi = 0, l1 = 0, kl = 0, reverse_kl = 0, js = 0, leak = 0, reverse_leak = 0;
    int64_t observed = 0, illegal = 0, outside_mu = 0, outside_pi = 0;
#pragma omp simd reduction(+ : mass_mu, mass_pi, l1, kl, reverse_kl, js, leak, reverse_leak) \
    reduction(| : observed, illegal, outside_mu, outside_pi)
    for (int64_t i = 0; i < K; i++) {
        double x = logp_mu[i], y = logp_pi[i];
        int64_t missing = (x != x) & (y != y); /* fills up a row with fewer ids */
        observed |= missing ^ 1;
        illegal |= (missing ^ 1) & !((x < 1) & (y < 1)); /* above, exp's power of two may not fit */
        int64_t dead_mu = !(x >= DEAD), dead_pi = !(y >= DEAD), common = (dead_mu | dead_pi) ^ 1;
        double m = dead_mu ? 0 : exponential(x), p = dead_pi ? 0 : exponential(y);
        double d = common ? y - x : 0, size = fabs(d), d2 = d * d;
        double e = exponential(-size), larger = m > p ? m : p;
        double curve = d2 * curvature(d); /* exp(d) - 1 - d */
        double gap = size < NEAR ? m * (d + curve) : copysign(larger * (1 - e), d); /* p - m */
        gap = common ? gap : 0;
        mass_mu += m;
        mass_pi += p;
        l1 += fabs(gap);
        kl += size < NEAR ? m * curve : gap - m * d;
        reverse_kl += size < NEAR ? gap * d - m * curve : p * d - gap;
        js += (m + p) * (size < NEAR ? d2 * js_curvature(d2) : js_weight(size, e));
        leak += dead_mu ? p : 0;
        reverse_leak += dead_pi ? m : 0;
        outside_mu |= dead_mu & (dead_pi ^ 1);
        outside_pi |= dead_pi & (dead_mu ^ 1);
    }
    return (topk_result){
        .mass_mu = illegal | !observed ? NAN : mass_mu,
        .mass_pi = mass_pi,
        .tv = (l1 + leak + reverse_leak) / 2,
        .kl = outside_pi ? INFINITY : kl + leak,
        .reverse_kl = outside_mu ? INFINITY : reverse_kl + reverse_leak,
        .js = js + HALF_LN2 * (leak + reverse_leak),
        .leak = leak,
    };
}

/* Strides are in bytes, from one row to the next; K doubles of a row are adjacent. A row that holds NaN on one side
   alone, a log-probability above 1, or no id at all gets a `mass_mu` of NaN. */
void topk_sums(const char *logp_mu, int64_t mu_stride, const char *logp_pi, int64_t pi_stride, int64_t n_rows,
               int64_t K, topk_result *out) {
    for (int64_t row = 0; row < n_rows; row++, logp_mu += mu_stride, logp_pi += pi_stride)
        out[row] = row_sums((const double *)logp_mu, (const double *)logp_pi, K);
}
