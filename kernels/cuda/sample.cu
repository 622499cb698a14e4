/* The device sampler: one CTA of 1024 threads a row. The kernel is in sample.cuh. */
#include "sample.cuh"

int cu_sample_launch(struct gpu_stream *s, const struct cu_sample *p)
{
    return sample_launch<1024>(s, p);
}
