#define _GNU_SOURCE
/* Goal: the files that frontends read are complete, named by their content, and right after each start, whatever was done to
 *       them or to a start before.
 * Method: a temporary folder, in which the test leaves what a kill or a loss of power leaves. fsync and rename are watched. */
#include "dyn_files.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- what is asked of the disk ---------------------------------------------------------------------------------------- */

static uint32_t n_synced, n_synced_at_rename, n_renames;
static int sync_error;

int fsync(int fd)
{
    n_synced++;
    errno = sync_error;
    return sync_error ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    if (n_renames++ == 0)
        n_synced_at_rename = n_synced;
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

/* ---- the folder ------------------------------------------------------------------------------------------------------- */

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/stator_files_XXXXXX");
    n_synced = n_synced_at_rename = n_renames = 0;
    sync_error = 0;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command) || mem_live() != 0;
}

static int make(struct dyn_files *out, const char *config, struct err *e)
{
    const struct str texts[DYN_FILE_TEMPLATE] = {[DYN_FILE_CONFIG] = str_from(config),
                                                 [DYN_FILE_TOKENIZER] = STR_LIT("{}"),
                                                 [DYN_FILE_TOKENIZER_CONFIG] = STR_LIT("[1]"),
                                                 [DYN_FILE_GENERATION] = STR_LIT("")};
    char cache[80];
    snprintf(cache, sizeof cache, "%s/a", root);
    return dyn_files_make(out, cache, texts, e);
}

static void assert_file(const char *path, const char *content)
{
    char text[64] = "";
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_string_equal(text, content);
}

static void write_over(const char *path, const char *content)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(content, f) >= 0 && fclose(f) == 0);
}

/* Entries beside the folder of those files and it. */
static uint32_t n_folders(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/a/dynamo", root);
    DIR *d = opendir(path);
    assert_non_null(d);
    uint32_t n = 0;
    for (struct dirent *f; (f = readdir(d));)
        n += f->d_name[0] != '.';
    closedir(d);
    return n;
}

/* "<folder>.<suffix>", with a half of a file in it, as a kill leaves it. */
static void leave_part(const struct dyn_files *files, const char *suffix)
{
    char path[300];
    int n = snprintf(path, sizeof path, "%s", files->f[0].path);
    n = (int)(strrchr(path, '/') - path);
    snprintf(path + n, sizeof path - (size_t)n, ".%s", suffix);
    assert_int_equal(mkdir(path, 0755), 0);
    n = (int)strlen(path);
    snprintf(path + n, sizeof path - (size_t)n, "/tokenizer.json");
    write_over(path, "{\"half\":");
}

/* ---- rules ------------------------------------------------------------------------------------------------------------ */

static void files_are_made_once(void **state)
{
    (void)state;
    struct dyn_files first, again, other;
    struct err e = {0};
    struct stat before, after;
    assert_int_equal(make(&first, "abc", &e), ST_OK);
    assert_int_equal(stat(first.f[DYN_FILE_CONFIG].path, &before), 0);
    assert_int_equal(make(&again, "abc", &e), ST_OK);
    assert_int_equal(stat(first.f[DYN_FILE_CONFIG].path, &after), 0);
    assert_string_equal(first.f[0].path, again.f[0].path);
    assert_true(before.st_ino == after.st_ino);
    assert_true(first.f[DYN_FILE_CONFIG].size == 3 && first.f[DYN_FILE_GENERATION].size == 0 &&
                !first.f[DYN_FILE_TEMPLATE].path);
    uint8_t hash[HASH_BYTES];
    hash_once("abc", 3, hash);
    assert_memory_equal(hash, first.f[DYN_FILE_CONFIG].hash, HASH_BYTES);
    assert_int_equal(make(&other, "abd", &e), ST_OK);
    assert_string_not_equal(first.f[0].path, other.f[0].path);
    assert_file(first.f[DYN_FILE_CONFIG].path, "abc");
    dyn_files_close(&first);
    dyn_files_close(&again);
    dyn_files_close(&other);
}

/* Changed, emptied, gone, with something else beside: the next start puts it right where it stands. */
static void what_was_changed_is_written_anew(void **state)
{
    (void)state;
    struct dyn_files files, again;
    struct err e = {0};
    assert_int_equal(make(&files, "abc", &e), ST_OK);
    for (int how = 0; how < 5; how++) {
        if (how < 2)
            write_over(files.f[DYN_FILE_CONFIG].path, how ? "" : "abx");
        else if (how < 4)
            assert_int_equal(unlink(files.f[how == 2 ? DYN_FILE_CONFIG : DYN_FILE_GENERATION].path), 0);
        else
            for (int i = 0; i < DYN_FILE_TEMPLATE; i++) /* a loss of power */
                write_over(files.f[i].path, "");
        if (make(&again, "abc", &e))
            fail_msg("%d: %s", how, e.text);
        assert_file(files.f[DYN_FILE_CONFIG].path, "abc");
        assert_file(files.f[DYN_FILE_TOKENIZER].path, "{}");
        assert_string_equal(files.f[DYN_FILE_CONFIG].path, again.f[DYN_FILE_CONFIG].path);
        assert_int_equal(n_folders(), 1);
        dyn_files_close(&again);
    }
    assert_int_equal(unlink(files.f[DYN_FILE_CONFIG].path), 0);
    assert_int_equal(mkdir(files.f[DYN_FILE_CONFIG].path, 0755), 0); /* what cannot be put right is named */
    assert_int_equal(make(&again, "abc", &e), ST_EIO);
    assert_non_null(strstr(e.text, "config.json"));
    assert_int_equal(n_folders(), 1);
    dyn_files_close(&files);
}

static void a_killed_start_leaves_nothing_behind_the_next(void **state)
{
    (void)state;
    struct dyn_files files, other, again;
    struct err e = {0};
    char parent[96];
    assert_int_equal(make(&files, "abc", &e), ST_OK);
    assert_int_equal(make(&other, "abd", &e), ST_OK);
    leave_part(&files, "aBc123");
    leave_part(&files, "aBc124");
    leave_part(&other, "aBc125"); /* not ours: another model's */
    snprintf(parent, sizeof parent, "%s/a/dynamo", root);
    int writer = open(parent, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(writer, LOCK_SH), 0); /* somebody who starts right now: one of them may be his */
    assert_int_equal(make(&again, "abc", &e), ST_OK);
    assert_int_equal(n_folders(), 5);
    dyn_files_close(&again);
    close(writer);
    assert_int_equal(make(&again, "abc", &e), ST_OK);
    assert_int_equal(n_folders(), 3);
    assert_file(files.f[DYN_FILE_CONFIG].path, "abc");
    dyn_files_close(&again);
    dyn_files_close(&files);
    dyn_files_close(&other);
}

static void files_are_on_the_disk_before_they_have_their_name(void **state)
{
    (void)state;
    struct dyn_files files;
    struct err e = {0};
    assert_int_equal(make(&files, "abc", &e), ST_OK);
    assert_int_equal(n_renames, 1);
    assert_int_equal(n_synced_at_rename, DYN_FILE_TEMPLATE + 1); /* and the folder */
    dyn_files_close(&files);
    sync_error = EINVAL; /* a file system that has no such thing */
    assert_int_equal(make(&files, "abd", &e), ST_OK);
    dyn_files_close(&files);
    sync_error = ENOSPC;
    assert_int_equal(make(&files, "abe", &e), ST_EIO);
    assert_non_null(strstr(e.text, strerror(ENOSPC)));
    assert_int_equal(n_folders(), 2);
}

static void without_memory_nothing_is_left(void **state)
{
    (void)state;
    struct dyn_files files;
    struct err e = {0};
    int st = ST_ENOMEM;
    for (uint64_t n = 1; st; n++) {
        mem_fail_after(n);
        st = make(&files, "abc", &e);
        mem_fail_after(0);
        if (st)
            assert_int_equal(mem_live(), 0);
    }
    dyn_files_close(&files);
    assert_int_equal(make(&files, "abc", &e), ST_OK);
    assert_int_equal(n_folders(), 1);
    dyn_files_close(&files);
}

static void a_folder_is_read_as_it_is(void **state)
{
    (void)state;
    struct dyn_files made, found;
    struct err e = {0};
    char folder[300];
    assert_int_equal(make(&made, "abc", &e), ST_OK);
    snprintf(folder, sizeof folder, "%s", made.f[0].path);
    *strrchr(folder, '/') = 0;
    assert_int_equal(unlink(made.f[DYN_FILE_GENERATION].path), 0); /* it may be missing */
    assert_int_equal(dyn_files_find(&found, folder, "/dev/null", &e), ST_OK);
    assert_true(!found.f[DYN_FILE_GENERATION].path &&
                strcmp(found.f[DYN_FILE_TEMPLATE].path, "/dev/null") == 0);
    dyn_files_close(&found);
    assert_int_equal(dyn_files_find(&found, root, NULL, &e), ST_ENOENT);
    assert_non_null(strstr(e.text, "config.json"));
    const struct str texts[DYN_FILE_TEMPLATE] = {{0}};
    assert_int_equal(dyn_files_make(&found, made.f[0].path, texts, &e),
                     ST_EIO); /* a file where a folder must be */
    dyn_files_close(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_are_made_once, make_root, remove_root),
        cmocka_unit_test_setup_teardown(what_was_changed_is_written_anew, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_killed_start_leaves_nothing_behind_the_next, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(files_are_on_the_disk_before_they_have_their_name, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(without_memory_nothing_is_left, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_folder_is_read_as_it_is, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
