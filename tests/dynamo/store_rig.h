/* A folder of the test's own, and records in a store. */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include "dyn_store.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { SETTLE_MS = 20000 };

static char root[64]; /* "" where a test needs none */

static inline int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/stator_store_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static inline int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static struct dyn_record record(enum dyn_bucket bucket, const char *key, const char *value)
{
    struct dyn_record r = {.bucket = bucket};
    buf_puts(&r.key, key);
    buf_puts(&r.value, value);
    return r;
}

static void publish(struct dyn_store *s, enum dyn_bucket bucket, const char *key, const char *value)
{
    struct dyn_record r = record(bucket, key, value);
    struct err e = {0};
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    if (dyn_store_settle(s, SETTLE_MS, &e))
        fail_msg("%s", e.text);
}

#endif
