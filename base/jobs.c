/* A mutex and a condition variable: a lane carries jobs of 100 us and more, so nothing finer would show. */
#define _GNU_SOURCE
#include "jobs.h"

#include "mem.h"

#include <pthread.h>
#include <stdbool.h>

struct job {
    jobs_fn *fn;
    void *ctx;
    uint64_t arg;
};

struct jobs {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stop;
    uint32_t capacity, first, count;
    struct job queue[];
};

static void *lane(void *arg)
{
    struct jobs *j = arg;
    pthread_mutex_lock(&j->lock);
    for (;;) {
        while (j->count == 0 && !j->stop)
            pthread_cond_wait(&j->more, &j->lock);
        if (j->count == 0)
            break;
        struct job job = j->queue[j->first];
        j->first = (j->first + 1) % j->capacity;
        j->count--;
        pthread_mutex_unlock(&j->lock);
        job.fn(job.ctx, job.arg);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

int jobs_create(struct jobs **out, uint32_t capacity, const char *thread_name)
{
    size_t bytes;
    if (capacity == 0 || !mem_mul(capacity, sizeof(struct job), &bytes) ||
        !mem_add(bytes, sizeof(struct jobs), &bytes))
        return ST_EINVAL;
    struct jobs *j = mem_zalloc(1, bytes);
    if (!j)
        return ST_ENOMEM;
    j->capacity = capacity;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->more, NULL);
    if (pthread_create(&j->thread, NULL, lane, j)) {
        pthread_cond_destroy(&j->more);
        pthread_mutex_destroy(&j->lock);
        mem_free(j);
        return ST_ENOMEM;
    }
    pthread_setname_np(j->thread, thread_name);
    *out = j;
    return ST_OK;
}

void jobs_destroy(struct jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    pthread_cond_destroy(&j->more);
    pthread_mutex_destroy(&j->lock);
    mem_free(j);
}

int jobs_push(struct jobs *j, jobs_fn *fn, void *ctx, uint64_t arg)
{
    pthread_mutex_lock(&j->lock);
    int st = j->count == j->capacity || j->stop ? ST_AGAIN : ST_OK;
    if (!st) {
        j->queue[(j->first + j->count++) % j->capacity] = (struct job){fn, ctx, arg};
        pthread_cond_signal(&j->more);
    }
    pthread_mutex_unlock(&j->lock);
    return st;
}
