/* card: the model card of this worker: its files, found or made, and what the rest of the program knows of the model.
 *
 * Owns     the files' paths, the URL they are served at.
 * Units    tokens, blocks.
 * States   open -> record -> close.
 * Threads  main opens and closes; read from any thread between.
 * Errors   ST_ENOENT, ST_EIO, ST_EUNSUP (a vocabulary that no tokenizer.json can express), ST_ENOMEM; with file or key named.
 * Bounds   texts of a GGUF: as large as its vocabulary; they are made once per model and kept in --cache-dir.
 * Source   NVIDIA Dynamo 1.6.1; Hugging Face config.json, tokenizer_config.json, generation_config.json.
 */
#ifndef STATOR_CARD_H
#define STATOR_CARD_H

#include "bundle.h"
#include "config.h"
#include "dyn_card.h"
#include "model.h"

struct card {
    struct dyn_files files;
    struct buf template, base_url;
    struct dyn_card card; /* borrows from the others */
};

/* Everything is borrowed until close. */
struct card_input {
    const struct config *config;
    const struct model *model;
    const struct bundle *bundle;
    const char *name; /* what clients ask for */
    const int32_t *eog;
    uint32_t n_eog, context_length, n_blocks, max_num_seqs, max_num_batched_tokens;
};

int card_open(struct card *c, const struct card_input *in, struct err *e);
/* The files are fetched from there, not read where they lie. */
int card_serve(struct card *c, const char *host, uint16_t port, struct err *e);
void card_close(struct card *c); /* a zeroed one is fine */

#endif
