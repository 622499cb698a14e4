#define _GNU_SOURCE
#include "log.h"

#include "clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Atomic int current = LOG_INFO;
static const char *const names[] = {"error", "warn", "info", "debug"};

bool log_level_from(const char *name, enum log_level *out)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&current, memory_order_relaxed);
}

static void write_line(enum log_level level, const char *module, uint32_t held, const char *fmt, va_list ap)
{
    char line[LOG_LINE_MAX];
    size_t room = sizeof line - 40; /* for the tail below */
    int n = snprintf(line, room, "%-5s %-8s ", names[level], module);
    size_t at = n < 0 ? 0 : (size_t)n;
    n = vsnprintf(line + at, room - at, fmt, ap);
    bool cut = n < 0 || (size_t)n >= room - at;
    size_t end = cut ? room - 1 : at + (size_t)n;
    for (size_t i = 0; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    n = snprintf(line + end, sizeof line - end - 1, "%s", cut ? "..." : "");
    end += (size_t)n;
    if (held)
        end += (size_t)snprintf(line + end, sizeof line - end - 1, " held_back=%u", held);
    line[end++] = '\n';
    ssize_t r = write(STDERR_FILENO, line, end);
    (void)r;
}

void log_write(enum log_level level, const char *module, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    va_list ap;
    va_start(ap, fmt);
    write_line(level, module, 0, fmt, ap);
    va_end(ap);
}

void log_write_limited(struct log_site *site, enum log_level level, const char *module, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    int64_t now = clock_now_ns(), next = atomic_load(&site->next_ns);
    if (now < next || !atomic_compare_exchange_strong(&site->next_ns, &next, now + NS_PER_S)) {
        atomic_fetch_add(&site->held, 1);
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    write_line(level, module, atomic_exchange(&site->held, 0), fmt, ap);
    va_end(ap);
}
