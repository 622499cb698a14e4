/* Each workload is a short program over three things: a clock of arrivals, a request with its class's habits, and who waits for
 * whom. Nothing here knows the machine; what it can carry is said in the comments. */
#include "sim_synth.h"

#include "clock.h"
#include "sim_rand.h"

#include <math.h>
#include <string.h>

struct maker {
    struct sim_trace *t;
    struct sim_rand rand;
    uint32_t n;
    struct err *e;
};

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static struct sim_request request(int32_t priority, int64_t at_ns, uint32_t n_prompt, uint32_t n_output)
{
    return (struct sim_request){.at_ns = at_ns,
                                .n_prompt = n_prompt,
                                .n_output = n_output,
                                .parent = SIM_NONE,
                                .priority = priority,
                                .sensitivity = 0.5f,
                                .flow = SIM_NONE};
}

/* A HIGH: it wants an answer now, and says how long it will be. */
static struct sim_request urgent(int64_t at_ns, uint32_t n_prompt, uint32_t n_output)
{
    struct sim_request r = request(SIM_PRIORITY_HIGH, at_ns, n_prompt, n_output);
    r.sensitivity = 1;
    r.osl = n_output;
    return r;
}

/* Adds with a prompt that begins with `shared` tokens of text `shared_id`; the rest is its own. */
static int add(struct maker *m, const struct sim_request *r, uint64_t shared_id, uint32_t shared)
{
    struct sim_text texts[2] = {
        {.id = sim_mix(0x73797374656d, shared_id), .n = shared},
        {.id = sim_mix(sim_mix(m->t->seed, 0x746578740a), m->t->n), .n = r->n_prompt}};
    return sim_trace_add(m->t, r, shared ? texts : texts + 1, shared ? 2 : 1, m->e);
}

static uint32_t about(struct maker *m, uint32_t n) /* n +- 25 % */
{
    return n - n / 4 + sim_rand_below(&m->rand, n / 2 + 1);
}

static int64_t gap(struct maker *m, double per_s)
{
    return (int64_t)sim_rand_exp(&m->rand, NS_PER_S / per_s);
}

/* ---- workloads --------------------------------------------------------------------------------------------------------- */

static int low_flood(struct maker *m)
{
    int rc = ST_OK;
    for (uint32_t i = 0; i < m->n && rc == ST_OK; i++) {
        struct sim_request r = request(SIM_PRIORITY_LOW, 0, about(m, 1024), about(m, 500));
        rc = add(m, &r, 0, 0);
    }
    int64_t at = 0;
    for (uint32_t i = 0; i < (m->n + 9) / 10 && rc == ST_OK; i++) {
        at += gap(m, 2);
        struct sim_request r = urgent(at, about(m, 1024), 10);
        rc = add(m, &r, 0, 0);
    }
    return rc;
}

static int triage(struct maker *m)
{
    int rc = ST_OK;
    int64_t at = 0;
    for (uint32_t i = 0; i < m->n && rc == ST_OK; i++) {
        at += gap(m, 4);
        uint32_t first = m->t->n;
        struct sim_request r = urgent(at, about(m, 600), 10); /* classify */
        r.flow = i;
        rc = add(m, &r, 1, 400);
        for (uint32_t k = 0; k < 4 && rc == ST_OK; k++) {
            r = request(SIM_PRIORITY_LOW, at, about(m, 3000), about(m, 800)); /* research */
            r.after = first;
            r.n_after = 1;
            r.flow = i;
            rc = add(m, &r, 2, 1000);
        }
        r = request(SIM_PRIORITY_MED, at, about(m, 5000), about(m, 600)); /* draft */
        r.after = first + 1;
        r.n_after = 4;
        r.flow = i;
        rc = rc ? rc : add(m, &r, 3, 600);
        r = urgent(at, about(m, 2000), 60); /* review */
        r.after = first + 5;
        r.n_after = 1;
        r.flow = i;
        rc = rc ? rc : add(m, &r, 4, 600);
    }
    return rc;
}

/* One session; the main agents grow to 142k over 43 turns, the others (44 %) are short errands of a subagent. */
static int session(struct maker *m, uint32_t number, int64_t at)
{
    enum { CONTEXT_MAX = 130000, SYSTEM = 6000 };
    bool errand = sim_rand_unit(&m->rand) < 0.44;
    uint32_t turns = sim_rand_geometric(&m->rand, errand ? 8 : 43), parent = SIM_NONE, said = SYSTEM;
    int rc = ST_OK;
    for (uint32_t i = 0; i < turns && rc == ST_OK; i++) {
        uint32_t in =
            said + 100 + (uint32_t)fmin(sim_rand_lognormal(&m->rand, errand ? 900 : 1600, 1), 20000);
        uint32_t out = 20 + (uint32_t)fmin(sim_rand_exp(&m->rand, 424), 4000);
        if (in + out > CONTEXT_MAX)
            break;
        double pause_s = fmin(sim_rand_lognormal(&m->rand, 4, 1.2), 300);
        struct sim_request r = request(errand ? SIM_PRIORITY_LOW : SIM_PRIORITY_MED, at, in, out);
        r.parent = parent;
        r.after = parent == SIM_NONE ? 0 : parent;
        r.n_after = parent != SIM_NONE;
        r.delay_ns = (int64_t)(pause_s * NS_PER_S);
        r.iat_ms = 4000;
        r.flow = number;
        uint32_t own = m->t->n;
        rc = add(m, &r, errand ? 6 : 5, parent == SIM_NONE ? SYSTEM : 0);
        parent = own;
        said = in + out;
    }
    return rc;
}

static int agents(struct maker *m)
{
    int rc = ST_OK;
    int64_t at = 0;
    for (uint32_t i = 0; i < m->n && rc == ST_OK; i++) {
        rc = session(m, i, at);
        at += gap(m, 2);
    }
    return rc;
}

static int longdoc(struct maker *m)
{
    int rc = ST_OK;
    int64_t at = 0, next_document = 2 * (int64_t)NS_PER_S;
    for (uint32_t i = 0; i < m->n && rc == ST_OK; i++) {
        at += gap(m, 2);
        struct sim_request r = request(SIM_PRIORITY_LOW, at, about(m, 700), about(m, 300));
        r.sensitivity = 1;
        rc = add(m, &r, 7, 200);
        if (rc == ST_OK && at >= next_document) {
            r = request(SIM_PRIORITY_LOW, at, 128000, 100);
            r.sensitivity = 0;
            rc = add(m, &r, 0, 0);
            next_document += 10 * (int64_t)NS_PER_S;
        }
    }
    return rc;
}

static int thrash(struct maker *m)
{
    enum { IN = 1024, OUT = 1024 };
    int rc = ST_OK;
    int64_t at = 0;
    m->t->kv_tokens = (uint64_t)m->n * (IN + OUT) * 105 / 100;
    for (uint32_t i = 0; i < m->n && rc == ST_OK; i++) {
        struct sim_request r = request(SIM_PRIORITY_LOW, 0, IN, OUT);
        rc = add(m, &r, 0, 0);
    }
    for (uint32_t i = 0; i < m->n / 2 && rc == ST_OK; i++) {
        at += gap(m, 4);
        struct sim_request r = urgent(at, IN, 200);
        rc = add(m, &r, 0, 0);
    }
    return rc;
}

/* Rate by thinning: candidates at the peak's rate, kept with the chance that the hour gives. */
static int diurnal(struct maker *m)
{
    static const int32_t priorities[10] = {-5, -5, 0, 0, 0, 0, 0, 5, 5, 10}; /* the mix of classes */
    const double capacity = 25, peak = 1.4, mean = 0.8;
    double day_ns = m->n / (capacity * mean) * NS_PER_S;
    int64_t at = 0;
    int rc = ST_OK;
    for (uint32_t i = 0; i < m->n && rc == ST_OK;) {
        at += gap(m, capacity * peak);
        double load = mean - 0.6 * cos(2 * 3.141592653589793 * (double)at / day_ns);
        if (sim_rand_unit(&m->rand) * peak >= load)
            continue;
        int32_t priority = priorities[sim_rand_below(&m->rand, 10)];
        struct sim_request r = request(priority, at, about(m, 1024), about(m, 250));
        if (priority == SIM_PRIORITY_HIGH)
            r = urgent(at, about(m, 1024), 50);
        rc = add(m, &r, 8, 256);
        i++;
    }
    return rc;
}

static const struct {
    const char *name;
    int (*make)(struct maker *m);
    uint32_t n;
} workloads[] = {{"low_flood", low_flood, 1000}, {"triage", triage, 50},  {"agents", agents, 40},
                 {"longdoc", longdoc, 200},      {"thrash", thrash, 128}, {"diurnal", diurnal, 20000}};

enum { WORKLOADS = sizeof workloads / sizeof workloads[0] };

bool sim_synth_known(const char *name)
{
    for (int i = 0; i < WORKLOADS; i++)
        if (strcmp(workloads[i].name, name) == 0)
            return true;
    return false;
}

const char *sim_synth_names(void)
{
    return "low_flood, triage, agents, longdoc, thrash, diurnal";
}

int sim_synth(struct sim_trace *t, const char *name, uint32_t n, struct err *e)
{
    for (int i = 0; i < WORKLOADS; i++) {
        struct maker m = {
            .t = t, .rand = {.state = sim_mix(t->seed, (uint64_t)i)}, .n = n ? n : workloads[i].n, .e = e};
        if (strcmp(workloads[i].name, name) == 0)
            return workloads[i].make(&m);
    }
    return err_set(e, ST_EINVAL, "%s: no such workload; there are %s", name, sim_synth_names());
}
