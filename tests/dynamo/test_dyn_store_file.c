#define _GNU_SOURCE
/* Goal: what was published stands in the folder under the documented names and comes back when it is lost; nothing of it is left
 *       after withdraw, whatever others do to the folder.
 * Method: a temporary folder. Publishing one more record starts a round at once, so nothing here waits for a timer. */
#include "store_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static uint32_t n_files(const char *bucket)
{
    char path[128];
    snprintf(path, sizeof path, "%s/deep/er/%s", root, bucket);
    DIR *d = opendir(path);
    assert_non_null(d);
    uint32_t n = 0;
    for (struct dirent *f; (f = readdir(d));)
        n += strcmp(f->d_name, ".") != 0 &&
             strcmp(f->d_name, "..") != 0; /* half-written ones would count too */
    closedir(d);
    return n;
}

static void assert_file(const char *bucket, const char *name, const char *content)
{
    char path[256], text[256] = "";
    snprintf(path, sizeof path, "%s/deep/er/%s/%s", root, bucket, name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s is not there", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    assert_string_equal(text, content);
}

static struct dyn_store *open_files(void)
{
    static char folder[96];
    snprintf(folder, sizeof folder, "%s/deep/er", root);
    const struct dyn_store_options o = {.backend = "file", .folder = folder, .instance = 7};
    struct dyn_store *s = NULL;
    struct err e = {0};
    if (dyn_store_open(&s, &o, &e))
        fail_msg("%s", e.text);
    return s;
}

static void files_carry_the_key_percent_encoded(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    assert_false(dyn_store_registered(s));
    publish(s, DYN_INSTANCES, "dynamo/backend/generate/7c039f38d2fc3a24", "{\"a\":1}");
    assert_true(dyn_store_registered(s));
    assert_file("v1/instances", "dynamo%2Fbackend%2Fgenerate%2F7c039f38d2fc3a24", "{\"a\":1}");
    publish(s, DYN_EVENT_SOURCES, "namespace/a%2Eb/topic/kv-events_x/1", "{}");
    assert_file("v1/event_sources", "namespace%2Fa%252Eb%2Ftopic%2Fkv%2Devents%5Fx%2F1", "{}");
    publish(s, DYN_CARDS, "k", "old");
    publish(s, DYN_CARDS, "k", "new");
    assert_file("v1/mdc", "k", "new");
    assert_int_equal(n_files("v1/mdc"), 1);
    dyn_store_withdraw(s, SETTLE_MS);
    assert_false(dyn_store_registered(s));
    for (int b = 0; b < 4; b++)
        assert_int_equal(
            n_files((const char *[]){"v1/instances", "v1/mdc", "v1/event_channels", "v1/event_sources"}[b]),
            0);
    struct dyn_record late = record(DYN_CARDS, "late", "{}"); /* comes after the last word: dropped */
    assert_int_equal(dyn_store_publish(s, &late), ST_OK);
    dyn_store_close(s);
    assert_int_equal(n_files("v1/mdc"), 0);
    assert_int_equal(mem_live(), 0);
}

static void records_are_touched_and_written_again_when_lost(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    publish(s, DYN_INSTANCES, "a", "A");
    publish(s, DYN_CARDS, "b", "B");
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/deep/er/v1/instances/a", root);
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    ino_t inode = stat(path, &st) ? 0 : st.st_ino;
    publish(s, DYN_EVENT_CHANNELS, "c", "C");
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtime > 1000 &&
                st.st_ino == inode); /* touched, not written again: watchers see no change */

    snprintf(path, sizeof path, "rm -rf %s/deep", root);
    assert_int_equal(system(path), 0);
    publish(s, DYN_EVENT_CHANNELS, "d", "D");
    assert_file("v1/instances", "a", "A");
    assert_file("v1/mdc", "b", "B");
    assert_file("v1/event_channels", "c", "C");
    dyn_store_close(s); /* withdraws */
    assert_int_equal(n_files("v1/instances") + n_files("v1/mdc") + n_files("v1/event_channels"), 0);
    assert_int_equal(mem_live(), 0);
}

static void a_store_that_cannot_be_written_says_why(void **state)
{
    (void)state;
    struct dyn_store *s = NULL;
    struct err e = {0};
    const struct dyn_store_options o = {.backend = "file", .folder = "/proc/no/such", .instance = 7};
    assert_int_equal(dyn_store_open(&s, &o, &e), ST_EIO);
    assert_non_null(strstr(e.text, "/proc/no"));

    s = open_files();
    char path[128];
    snprintf(path, sizeof path, "%s/deep/er/v1", root);
    assert_int_equal(remove_root(NULL), 0);
    snprintf(path, sizeof path, "%s", root);
    FILE *f = fopen(path, "w"); /* a file where a folder must be */
    assert_non_null(f);
    fclose(f);
    struct dyn_record r = record(DYN_CARDS, "k", "v");
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 50, &e), ST_ETIMEOUT);
    assert_non_null(strstr(e.text, strerror(ENOTDIR)));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dyn_store_settle(s, SETTLE_MS, &e), ST_OK); /* it went on trying */
    assert_file("v1/mdc", "k", "v");
    assert_true(dyn_store_registered(s));
    assert_int_equal(remove_root(NULL), 0);
    f = fopen(path, "w"); /* once more: nothing can stand below it */
    assert_non_null(f);
    fclose(f);
    r = record(DYN_CARDS, "l", "v");
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 50, &e), ST_ETIMEOUT);
    assert_false(dyn_store_registered(s));
    assert_int_equal(unlink(path), 0);
    struct dyn_record failed = {.bucket = DYN_CARDS, .value = {.failed = ST_ENOMEM}};
    assert_int_equal(dyn_store_publish(s, &failed), ST_ENOMEM);
    dyn_store_close(s);
    assert_int_equal(mem_live(), 0);
}

static void instances_are_random_and_positive(void **state)
{
    (void)state;
    uint64_t a = dyn_store_random_instance(), b = dyn_store_random_instance();
    assert_true(a != b && a > 0 && b > 0 && a >> 63 == 0 && b >> 63 == 0);
}

static const char *path_of(const char *file)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/deep/er/%s", root, file);
    return path;
}

static void write_file(const char *file, const char *text)
{
    FILE *f = fopen(path_of(file), "w");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) < 0, 0);
    fclose(f);
}

/* What stands under a name of ours is ours, or becomes so: other text, less or more of it, a link, a pipe. */
static void a_record_that_somebody_replaced_is_written_again(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    struct stat st;
    char other[96];
    publish(s, DYN_INSTANCES, "a", "our text");
    for (int how = 0; how < 5; how++) {
        const char *text = how == 0 ? "his text" : how == 1 ? "our" : how == 2 ? "our text, and more" : NULL;
        assert_int_equal(unlink(path_of("v1/instances/a")), 0);
        if (text)
            write_file("v1/instances/a", text);
        snprintf(other, sizeof other, "%s/other", root);
        FILE *f = fopen(other, "w");
        assert_true(f && fputs("our text", f) >= 0 && fclose(f) == 0);
        const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        assert_int_equal(utimensat(AT_FDCWD, other, old, 0), 0);
        if (how == 3)
            assert_int_equal(symlink(other, path_of("v1/instances/a")), 0);
        if (how == 4)
            assert_int_equal(mkfifo(path_of("v1/instances/a"), 0600), 0);
        publish(s, DYN_CARDS, "b", "B"); /* a round */
        assert_file("v1/instances", "a", "our text");
        assert_true(lstat(path_of("v1/instances/a"), &st) == 0 && S_ISREG(st.st_mode));
        assert_true(stat(other, &st) == 0 && st.st_mtime == 1000); /* nobody else's file is touched */
    }
    dyn_store_close(s);
    assert_int_equal(n_files("v1/instances"), 0);
    assert_int_equal(mem_live(), 0);
}

/* A folder where the file must be, and one that may not be written: said, and tried again until it can be done. */
static void what_stands_in_the_way_is_named(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    struct err e = {0};
    struct dyn_record r = record(DYN_CARDS, "a", "A");
    assert_int_equal(mkdir(path_of("v1/mdc/a"), 0700), 0);
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 50, &e), ST_ETIMEOUT);
    assert_non_null(strstr(e.text, strerror(EISDIR)));
    assert_false(dyn_store_registered(s));
    assert_int_equal(n_files("v1/mdc"), 1); /* and no half of a file beside it */
    assert_int_equal(rmdir(path_of("v1/mdc/a")), 0);
    assert_int_equal(dyn_store_settle(s, SETTLE_MS, &e), ST_OK);
    assert_file("v1/mdc", "a", "A");
    dyn_store_close(s);
    assert_int_equal(mem_live(), 0);
}

/* A full disk, stood in for by a limit on the size of files: nothing half-written is left or shown. */
static void a_disk_without_room_leaves_no_half_records(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    struct rlimit before, small;
    struct err e = {0};
    publish(s, DYN_INSTANCES, "a", "A");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 4, .rlim_max = before.rlim_max};
    struct dyn_record r = record(DYN_CARDS, "k", "more than fits");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    int st = dyn_store_settle(s, 50, &e);
    uint32_t left = n_files("v1/mdc");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(st, ST_ETIMEOUT);
    assert_non_null(strstr(e.text, strerror(EFBIG)));
    assert_int_equal(left, 0);
    assert_file("v1/instances", "a", "A");
    assert_int_equal(dyn_store_settle(s, SETTLE_MS, &e), ST_OK);
    assert_file("v1/mdc", "k", "more than fits");
    dyn_store_close(s);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_carry_the_key_percent_encoded, make_root, remove_root),
        cmocka_unit_test_setup_teardown(records_are_touched_and_written_again_when_lost, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(a_store_that_cannot_be_written_says_why, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_record_that_somebody_replaced_is_written_again, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(what_stands_in_the_way_is_named, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_disk_without_room_leaves_no_half_records, make_root, remove_root),
        cmocka_unit_test(instances_are_random_and_positive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
