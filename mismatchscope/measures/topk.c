/* What the observed ids of one state add to each divergence; what topk.py makes of them is said there.
 *
 * Legend: mu = behaviour policy, pi = reference policy, K = observed ids, x = log mu and y = log pi of an id,
 * d = y - x. The formulas are those of cells.py, whose comments say why no term cancels.
 */
#include <math.h>
#include <stdint.h>

/* The layout is read by numpy: see `TOPK_RESULT` in kernel.py. */
typedef struct {
    double mass_mu, mass_pi, tv, kl, reverse_kl, js;
} topk_result;

/* exp(d) - 1 - d, for small d by its series, of which the two terms would share all digits. */
static double k3(double d) {
    if (fabs(d) >= 1e-2) return expm1(d) - d;
    return d * d / 2 * (1 + d / 3 * (1 + d / 4 * (1 + d / 5 * (1 + d / 6 * (1 + d / 7)))));
}

/* A cell that both policies have. */
static void add_common(double x, double y, double mu, double pi, topk_result *sum) {
    double d = y - x, size = fabs(d);
    if (d == 0) return;
    double gap = -expm1(-size); /* 1 - smaller / larger of the two probabilities */
    double distance = (mu > pi ? mu : pi) * gap;
    sum->tv += distance / 2;
    if (size < 1) {
        sum->kl += mu * k3(d);
        sum->reverse_kl += pi * k3(-d);
    } else {
        double rise = copysign(distance, d);
        sum->kl += rise - mu * d;
        sum->reverse_kl += pi * d - rise;
    }
    double t = gap / (2 - gap); /* tanh(|d| / 2) */
    double log_sech2 = size < 1 ? log1p(-t * t) : -size - 2 * log1p(-gap / 2);
    sum->js += (mu + pi) * (t * size + log_sech2) / 4;
}

static topk_result row_sums(const double *logp_mu, const double *logp_pi, int64_t K) {
    topk_result sum = {0};
    double leak = 0, reverse_leak = 0;
    int64_t observed = 0;
    int illegal = 0;
    for (int64_t i = 0; i < K; i++) {
        double x = logp_mu[i], y = logp_pi[i];
        if (isnan(x) && isnan(y)) continue; /* fills up a row with fewer ids */
        observed++;
        illegal |= !(x < INFINITY && y < INFINITY);
        double mu = exp(x), pi = exp(y);
        sum.mass_mu += mu;
        sum.mass_pi += pi;
        if (mu > 0 && pi > 0) add_common(x, y, mu, pi, &sum);
        else leak += pi, reverse_leak += mu;
    }
    sum.tv += (leak + reverse_leak) / 2;
    sum.kl = reverse_leak > 0 ? INFINITY : sum.kl + leak;
    sum.reverse_kl = leak > 0 ? INFINITY : sum.reverse_kl + reverse_leak;
    sum.js += log(2) / 2 * (leak + reverse_leak);
    if (illegal || !observed) sum.mass_mu = NAN;
    return sum;
}

/* Strides are in bytes, from one row to the next; K doubles of a row are adjacent. A row that holds +inf, NaN on one
   side alone, or no id at all gets a `mass_mu` of NaN. */
void topk_sums(const char *logp_mu, int64_t mu_stride, const char *logp_pi, int64_t pi_stride, int64_t n_rows,
               int64_t K, topk_result *out) {
    for (int64_t row = 0; row < n_rows; row++, logp_mu += mu_stride, logp_pi += pi_stride)
        out[row] = row_sums((const double *)logp_mu, (const double *)logp_pi, K);
}
