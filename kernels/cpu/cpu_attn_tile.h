/* cpu_attn_tile: sizes inside one attention item, shared by the plan and the kernels.
 *
 * Owns     nothing.
 * Units    queries = (row, head) pairs; tokens.
 * States   -
 * Threads  -
 * Errors   -
 * Bounds   -
 * Source   measured: see cpu_attn.inl.
 */
#ifndef STATOR_CPU_ATTN_TILE_H
#define STATOR_CPU_ATTN_TILE_H

enum {
    CPU_ATTN_QUERIES = 96, /* of one item, at most */
    CPU_ATTN_GROUP = 6,    /* queries of one micro-kernel, at most */
    CPU_ATTN_PANEL = 64,   /* positions of one softmax step */
    CPU_ATTN_PAD = 16,     /* floats between rows of q and o: keeps them in different cache sets */
    CPU_ATTN_SCORES = CPU_ATTN_PANEL + 16
};

#endif
