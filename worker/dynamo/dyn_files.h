/* dyn_files: the files that a frontend needs to speak for this worker: configuration, tokenizer, template.
 *
 * Owns     the paths.
 * Units    bytes; BLAKE3 of the contents.
 * States   found (a Hugging Face folder's own) or made (of texts, in a cache) -> read -> close.
 * Threads  plain data after that.
 * Errors   ST_ENOENT, ST_EIO with the path, ST_ENOMEM.
 * Bounds   files are read in pieces; each once.
 * Source   NVIDIA Dynamo 1.6.1: frontends check size and BLAKE3 of every file.
 */
#ifndef STATOR_DYN_FILES_H
#define STATOR_DYN_FILES_H

#include "buf.h"
#include "hash.h"
#include "status.h"

#include <stdint.h>

enum dyn_file_kind {
    DYN_FILE_CONFIG,
    DYN_FILE_TOKENIZER,
    DYN_FILE_TOKENIZER_CONFIG,
    DYN_FILE_GENERATION,
    DYN_FILE_TEMPLATE,
    DYN_FILES
};

struct dyn_file {
    char *path; /* absolute; NULL: there is none (the last two need not be) */
    uint64_t size;
    uint8_t hash[HASH_BYTES];
};

struct dyn_files {
    struct dyn_file f[DYN_FILES];
};

extern const char *const dyn_file_names[DYN_FILES]; /* "config.json", ... */

/* `template_path`: a chat template that replaces the folder's own, NULL = none. */
int dyn_files_find(struct dyn_files *out, const char *folder, const char *template_path, struct err *e);
/* `texts`: one for each of the first four. They are kept below `cache` under a name that depends on them alone, written at once
 * or not at all, and found there by the next start, which writes them again where they were changed or lost. */
int dyn_files_make(struct dyn_files *out, const char *cache, const struct str texts[DYN_FILE_TEMPLATE],
                   struct err *e);
void dyn_files_close(struct dyn_files *f); /* a zeroed one is fine; files stay */

#endif
