/* put_file: a small file of a test's own, written or taken away.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   fail the test.
 * Bounds   paths of 255 bytes.
 * Source   -
 */
#ifndef STATOR_TEST_PUT_FILE_H
#define STATOR_TEST_PUT_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

/* `text` NULL: the file goes, if it is there. */
static inline void put_file(const char *folder, const char *name, const char *text)
{
    char path[256];
    int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_true(n > 0 && (size_t)n < sizeof path);
    if (!text) {
        unlink(path);
        return;
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

#endif
