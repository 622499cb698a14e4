/* http_job: one API call from its body to its reply: prepare, submit one engine request per choice, collect, frame.
 *
 * Owns     the table owns all jobs and one lane; a job owns its body, prompt, choices and output.
 * Units    bytes, tokens, ns.
 * States   job: PREPARING -> RUNNING -> DONE, or PREPARING -> DONE when refused. http_job_drop at any time: what is open in the
 *          engine is cancelled at once, and the slots are released when their END events arrive.
 * Threads  the io thread only. Long bodies are prepared on the lane; the job is not touched by anyone else meanwhile.
 * Errors   of a job: http_job_status and http_job_text once DONE (before a stream began), else an error frame in the stream.
 * Bounds   a stream's unread output is at most `stream_bytes_max` plus a frame of each choice: a client that reads too slowly is
 *          broken off. One lane, HTTP_LANE_MAX bodies waiting: more are refused with ST_EBUSY.
 * Source   -
 */
#ifndef STATOR_HTTP_JOB_H
#define STATOR_HTTP_JOB_H

#include "api_parse.h"
#include "buf.h"
#include "http_prompt.h"
#include "ledger.h"

#include <stdbool.h>
#include <stddef.h>

enum { HTTP_INLINE_BYTES = 8192 }; /* longer bodies are prepared on the lane */

struct http_job;
struct http_jobs;
enum http_job_state { HTTP_JOB_PREPARING, HTTP_JOB_RUNNING, HTTP_JOB_DONE };

struct http_jobs_options {
    struct ledger *ledger;
    const struct http_model *model;
    uint32_t keepalive_ms;
    size_t stream_bytes_max;
};

int http_jobs_create(struct http_jobs **out, const struct http_jobs_options *o);
void http_jobs_destroy(struct http_jobs *jobs); /* NULL ok; jobs must have been dropped; waits for the lane */
int http_jobs_fd(const struct http_jobs *jobs); /* readable when the lane finished something */
void http_jobs_poll(struct http_jobs *jobs); /* handles what the lane finished; the engine's events come from the ledger */
bool http_jobs_sleep(struct http_jobs *jobs); /* true: nothing is waiting and the fd will tell */
void http_jobs_drain_fd(struct http_jobs *jobs);
void http_jobs_tick(struct http_jobs *jobs, int64_t now_ns); /* comment frames for silent streams */
uint32_t http_jobs_count(const struct http_jobs *jobs);      /* not yet dropped */
void http_jobs_fail_all(struct http_jobs *jobs, int status,
                        const char *text); /* running ones end with this error */

/* Takes the body's memory. `session` is what the call's headers name, empty = none; API_HINT_BYTES_MAX bytes of it are kept.
 * `wake` is called when the state changed or output came; never from within this call. NULL: no memory. */
struct http_job *http_job_start(struct http_jobs *jobs, enum api_endpoint endpoint, struct buf *body, struct str session,
                                void (*wake)(void *ctx), void *ctx);
void http_job_drop(struct http_job *j);
enum http_job_state http_job_state(const struct http_job *j);
bool http_job_streams(const struct http_job *j); /* the reply is a stream; valid from RUNNING on */
int http_job_status(const struct http_job *j);
const char *http_job_text(const struct http_job *j);
uint32_t http_job_retry_after_s(const struct http_job *j); /* refused with ST_EBUSY: when to come back */
bool http_job_broken(const struct http_job *j); /* broken off: the client reads too slowly */
/* DONE, no stream, ST_OK: the reply; the caller takes the memory (mem_free). */
struct buf http_job_take_reply(struct http_job *j);
/* Stream: bytes copied, 0 = nothing yet, -1 = end of stream, -2 = broken off. */
long http_job_read(struct http_job *j, char *out, size_t max);

#endif
