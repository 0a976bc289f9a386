/* Sums over the tokens of each sequence by the bins of several keys, in one pass; see corrections/token_tables.py.
 *
 * Legend: sequence s is tokens offsets[s] up to offsets[s + 1]; G groups of B bins, one after another. d = log rho.
 * Nearly all tokens are in the bin of zero, so those are summed apart, as vectors.
 */
#include "double_log.h"
#include "token_figures.h"

enum { PIECE = 256, OF_RATIO = 6, OF_TARGET = 4, MOST_KNOWN = 4, MOST_VALUES = OF_RATIO + OF_TARGET + MOST_KNOWN };
enum { RATIO, TARGET, CHANGE, OUTWARD_KL, KEYS }; /* as `KEYS` of corrections/bins.py */

static const double SMALLEST_REST = 0x1p-24; /* as in corrections/token_tables.py */

/* All but the first may be NULL; read by numpy, as the next is. */
typedef struct {
    const double *log_ratio, *target, *advantage, *logp_mu, *known[MOST_KNOWN];
} ratio_columns;

/* Bin b holds keys in (edge[b - 1], edge[b]]; `zero` is that of 0. A key without a table is not asked for. */
typedef struct {
    const double *edge;
    int64_t edges, zero, groups;
    double *table; /* [sequences, groups (edges + 1), 1 + values], of zeros */
} key_bins;

typedef struct {
    double value[MOST_VALUES][PIECE], key[KEYS][PIECE];
    double total[PIECE], mu[PIECE], pi[PIECE]; /* log (pi / mu) and both probabilities, of pi_theta or of pi_old */
    int64_t group[PIECE];                      /* 0, or 1 where the advantage is positive and 2 where negative */
} piece;

INLINE void keep_change(piece *p, int64_t i, token_figures t) {
    p->key[CHANGE][i] = copysign(t.gap, t.d);
    p->total[i] = t.d;
    p->mu[i] = t.m;
    p->pi[i] = t.p;
}

/* Without log mu the changes are of no use. */
static void figures_of_tokens(const ratio_columns *of, int64_t begin, int64_t n, piece *p) {
    const double *log_ratio = of->log_ratio + begin, *logp_mu = of->logp_mu ? of->logp_mu + begin : log_ratio;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double d = log_ratio[i];
        token_figures t = figures_at(d, logp_mu[i] + (d > 0 ? d : 0), 1);
        p->value[0][i] = t.ratio;
        p->value[1][i] = t.ratio * t.ratio;
        p->value[2][i] = t.shortfall;
        p->value[3][i] = t.k3;
        p->value[4][i] = t.inverse;
        p->value[5][i] = d * d;
        p->key[RATIO][i] = d;
        keep_change(p, i, t);
    }
    if (!of->target) return;
    const double *target = of->target + begin;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double total = log_ratio[i] + target[i];
        token_figures t = figures_at(total, logp_mu[i] + (total > 0 ? total : 0), 1);
        double ratio = figures_at(target[i], 0, 1).ratio;
        p->value[6][i] = t.ratio;
        p->value[7][i] = t.ratio * t.ratio;
        p->value[8][i] = ratio;
        p->value[9][i] = ratio * ratio;
        p->key[TARGET][i] = target[i];
        keep_change(p, i, t);
    }
}

static void outward_kl_of_tokens(const double *advantage, int64_t n, piece *p) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        double m = p->mu[i], total = p->total[i], rest_mu = 1 - m, rest_pi = 1 - p->pi[i];
        rest_mu = rest_mu > SMALLEST_REST ? rest_mu : SMALLEST_REST;
        rest_pi = rest_pi > SMALLEST_REST ? rest_pi : SMALLEST_REST;
        double kl = (m > 0 ? -m * total : 0) + rest_mu * logarithm(rest_mu / rest_pi);
        int64_t outward = advantage[i] > 0 ? total > 0 : total < 0;
        p->key[OUTWARD_KL][i] = outward ? kl : 0;
    }
}

static void group_tokens(const double *advantage, int64_t n, piece *p) {
    for (int64_t i = 0; i < n; i++) {
        double of_token = advantage ? advantage[i] : 0;
        p->group[i] = of_token > 0 ? 1 : of_token < 0 ? 2 : 0;
    }
}

/* The sums that every key has, together: one after the other would wait for each addition. */
static void add_near(const double *const *value, const int64_t *far, int64_t n, double *sum) {
    double ratio = 0, square = 0, shortfall = 0, k3 = 0, error = 0, log_square = 0;
#pragma omp simd reduction(+ : ratio, square, shortfall, k3, error, log_square)
    for (int64_t i = 0; i < n; i++) {
        ratio += far[i] ? 0 : value[0][i];
        square += far[i] ? 0 : value[1][i];
        shortfall += far[i] ? 0 : value[2][i];
        k3 += far[i] ? 0 : value[3][i];
        error += far[i] ? 0 : value[4][i];
        log_square += far[i] ? 0 : value[5][i];
    }
    double found[OF_RATIO] = {ratio, square, shortfall, k3, error, log_square};
    for (int64_t v = 0; v < OF_RATIO; v++)
        sum[v] += found[v];
}

static void add_tokens(const piece *p, const double *const *value, int64_t values, const double *key,
                       const key_bins *bins, int64_t n, double *row) {
    int64_t width = 1 + values, home_group = bins->groups > 1 ? p->group[n / 2] : 0, fars = 0, far[PIECE];
    double low = bins->zero ? bins->edge[bins->zero - 1] : -INFINITY;
    double high = bins->zero < bins->edges ? bins->edge[bins->zero] : INFINITY;
    int64_t any_group = bins->groups == 1;
#pragma omp simd reduction(+ : fars)
    for (int64_t i = 0; i < n; i++) {
        far[i] = !((key[i] > low) & (key[i] <= high) & (any_group | (p->group[i] == home_group)));
        fars += far[i];
    }
    double *home = row + (home_group * (bins->edges + 1) + bins->zero) * width;
    home[0] += (double)(n - fars);
    add_near(value, far, n, home + 1);
    for (int64_t v = OF_RATIO; v < values; v++) {
        double near = 0;
#pragma omp simd reduction(+ : near)
        for (int64_t i = 0; i < n; i++)
            near += far[i] ? 0 : value[v][i];
        home[1 + v] += near;
    }
    if (!fars) return;
    int64_t place[PIECE + 1], found = 0;
    for (int64_t i = 0; i < n; i++) {
        place[found] = i;
        found += far[i];
    }
    for (int64_t f = 0; f < found; f++) {
        int64_t i = place[f], bin = any_group ? 0 : p->group[i] * (bins->edges + 1);
        for (int64_t e = 0; e < bins->edges; e++)
            bin += bins->edge[e] < key[i];
        double *at = row + bin * width;
        at[0] += 1;
        for (int64_t v = 0; v < values; v++)
            at[1 + v] += value[v][i];
    }
}

void ratio_bins(const ratio_columns *of, const int64_t *offsets, int64_t n_sequences, const key_bins *keys) {
    int64_t own = OF_RATIO + (of->target ? OF_TARGET : 0);
    piece p;
    for (int64_t s = 0; s < n_sequences; s++)
        for (int64_t begin = offsets[s]; begin < offsets[s + 1]; begin += PIECE) {
            int64_t left = offsets[s + 1] - begin, n = left < PIECE ? left : PIECE, values = own;
            const double *value[MOST_VALUES];
            figures_of_tokens(of, begin, n, &p);
            if (keys[OUTWARD_KL].table) outward_kl_of_tokens(of->advantage + begin, n, &p);
            group_tokens(of->advantage ? of->advantage + begin : NULL, n, &p);
            for (int64_t v = 0; v < own; v++)
                value[v] = p.value[v];
            for (int64_t k = 0; k < MOST_KNOWN; k++)
                if (of->known[k]) value[values++] = of->known[k] + begin;
            for (int64_t k = 0; k < KEYS; k++)
                if (keys[k].table) {
                    int64_t row = keys[k].groups * (keys[k].edges + 1) * (1 + values);
                    add_tokens(&p, value, values, p.key[k], &keys[k], n, keys[k].table + s * row);
                }
        }
}
