/* The device sampler: one CTA of 1024 threads a row. The kernel is in sample.cuh. */
#include "sample.cuh"

size_t cu_sample_scratch_bytes(uint32_t vocab)
{
    (void)vocab;
    return 0; /* all of it fits into shared memory */
}

int cu_sample_launch(struct gpu_stream *s, const struct cu_sample *p)
{
    return sample_launch<1024>(s, p);
}
