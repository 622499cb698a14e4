/* log: one line per event on standard error, "level module message key=value ...".
 *
 * Owns     the process-wide level; nothing else.
 * Units    -
 * States   -
 * Threads  any; a line is written with one write call and never torn.
 * Errors   none; a line that cannot be written is lost.
 * Bounds   LOG_LINE_MAX bytes a line, cut with "...". log_every lets one line per second and call site through and
 *          says how many it held back.
 */
#ifndef STATOR_LOG_H
#define STATOR_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum { LOG_LINE_MAX = 1024 };

bool log_level_from(const char *name, enum log_level *out); /* "error", "warn", "info", "debug" */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* Control bytes in the formatted text are written as '?': a client's string cannot forge a line. */
void log_write(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct log_site {
    _Atomic int64_t next_ns;
    _Atomic uint32_t held;
};
void log_write_limited(struct log_site *site, enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define log_error(module, ...) log_write(LOG_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_write(LOG_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_write(LOG_INFO, module, __VA_ARGS__)
#define log_debug(module, ...)                         \
    do {                                               \
        if (log_enabled(LOG_DEBUG))                    \
            log_write(LOG_DEBUG, module, __VA_ARGS__); \
    } while (0)
#define log_warn_limited(module, ...)                             \
    do {                                                          \
        static struct log_site site_;                             \
        log_write_limited(&site_, LOG_WARN, module, __VA_ARGS__); \
    } while (0)

#endif
