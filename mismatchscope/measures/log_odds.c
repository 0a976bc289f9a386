/* Sums of the log-odds of sampled tokens under both policies; comparison/log_odds.py says what they are for.
 *
 * Legend: x = log mu, y = log pi of a token, l = its log-odds x - log(1 - mu) and y - log(1 - pi), M their mean and
 * D their difference.
 */
#include "double_log.h"

/* The layout is read by numpy: see `ODDS_SUMS` in token_odds.py. */
typedef struct {
    double tokens, mean, difference, mean_square, product, difference_square, scaled_tokens, scaled;
    double smallest[6], largest[6];
} odds_result;

void log_odds_sums(const double *logp_mu, const double *logp_pi, const int64_t *offsets, int64_t n_sequences,
                   double certain, double scaled_below, odds_result *out) {
    for (int64_t s = 0; s < n_sequences; s++) {
        double tokens = 0, sum_m = 0, sum_d = 0, sum_mm = 0, sum_md = 0, sum_dd = 0, scaled_tokens = 0, scaled = 0;
        double low_m = INFINITY, low_d = INFINITY, low_mm = INFINITY, low_md = INFINITY, low_dd = INFINITY;
        double low_scaled = INFINITY, high_m = -INFINITY, high_d = -INFINITY, high_mm = -INFINITY;
        double high_md = -INFINITY, high_dd = -INFINITY, high_scaled = -INFINITY;
#pragma omp simd reduction(+ : tokens, sum_m, sum_d, sum_mm, sum_md, sum_dd, scaled_tokens, scaled) \
    reduction(min : low_m, low_d, low_mm, low_md, low_dd, low_scaled) \
    reduction(max : high_m, high_d, high_mm, high_md, high_dd, high_scaled)
        for (int64_t i = offsets[s]; i < offsets[s + 1]; i++) {
            double x = logp_mu[i], y = logp_pi[i];
            int64_t seen = (x < certain) & (y < certain) & (y > -INFINITY);
            x = seen ? x : -1;
            y = seen ? y : -1;
            double m = exponential(x), p = exponential(y);
            double odds_mu = x - logarithm(1 - m), odds_pi = y - logarithm(1 - p);
            double mean = (odds_mu + odds_pi) / 2, d = odds_pi - odds_mu;
            double both = sqrt(m * p), quotient = (y - x) / (1 - both), square = quotient * quotient;
            int64_t scales = seen & (both < scaled_below);
            double mm = mean * mean, md = mean * d, dd = d * d;
            tokens += seen ? 1 : 0;
            sum_m += seen ? mean : 0;
            sum_d += d;
            sum_mm += seen ? mm : 0;
            sum_md += md;
            sum_dd += dd;
            scaled_tokens += scales ? 1 : 0;
            scaled += scales ? square : 0;
            low_m = seen & (mean < low_m) ? mean : low_m;
            low_d = seen & (d < low_d) ? d : low_d;
            low_mm = seen & (mm < low_mm) ? mm : low_mm;
            low_md = seen & (md < low_md) ? md : low_md;
            low_dd = seen & (dd < low_dd) ? dd : low_dd;
            low_scaled = scales & (square < low_scaled) ? square : low_scaled;
            high_m = seen & (mean > high_m) ? mean : high_m;
            high_d = seen & (d > high_d) ? d : high_d;
            high_mm = seen & (mm > high_mm) ? mm : high_mm;
            high_md = seen & (md > high_md) ? md : high_md;
            high_dd = seen & (dd > high_dd) ? dd : high_dd;
            high_scaled = scales & (square > high_scaled) ? square : high_scaled;
        }
        out[s] = (odds_result){
            tokens, sum_m, sum_d, sum_mm, sum_md, sum_dd, scaled_tokens, scaled,
            {low_m, low_d, low_mm, low_md, low_dd, low_scaled},
            {high_m, high_d, high_mm, high_md, high_dd, high_scaled},
        };
    }
}
