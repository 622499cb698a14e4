/* One table gives every code its name, HTTP status and text, so that no second mapping can drift from it. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>

struct row {
    int code, http;
    const char *name, *type, *text;
};

static const struct row rows[] = {
#define X(code, value, http, type, text) {value, http, #code, type, text},
    STATUS_TABLE(X)
#undef X
};

static const struct row *find(int status)
{
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].code == status)
            return &rows[i];
    return NULL;
}

int err_set(struct err *e, int status, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        e->status = status;
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
    }
    return status;
}

const char *status_name(int status)
{
    const struct row *r = find(status);
    return r ? r->name : "ST_?";
}

const char *status_text(int status)
{
    const struct row *r = find(status);
    return r ? r->text : "unknown status";
}

const char *status_type(int status)
{
    const struct row *r = find(status);
    return r ? r->type : "server_error";
}

int status_http(int status)
{
    const struct row *r = find(status);
    return r ? r->http : 500;
}
