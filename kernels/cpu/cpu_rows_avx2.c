/* Row operations, attention and sampling for one instruction set. The vector type makes the difference; the
 * operations are in the .inl files, and give the same bits in every such file.
 */
#include "cpu_rows.h"
#include "cpu_attn_tile.h"
#include "cpu_sample_row.h"

#define CPU_VEC 2
#include "cpu_vec.h"

#include "cpu_rows.inl"
#include "cpu_attn.inl"
#include "cpu_sample.inl"

const struct cpu_row_kernels cpu_rows_avx2 = {
    .isa = "avx2",
    .norm = rows_norm,
    .silu_mul = rows_silu_mul,
    .rope = rows_rope,
    .kv_append = rows_kv_append,
    .attn_item = rows_attn_item,
    .sample = rows_sample,
};
