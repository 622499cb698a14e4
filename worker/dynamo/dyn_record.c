/* Records are text: numbers of 64 bits are printed as such, and nothing here passes through a double. Keys and values name the
 * same things twice, because frontends take what is removed from the key and what is added from the value. */
#include "dyn_record.h"

#include <ctype.h>
#include <inttypes.h>

static const char *own(const struct dyn_self *self, const char *endpoint)
{
    return endpoint ? endpoint : self->endpoint;
}

static void put_name(struct buf *out, const char *key, const char *value)
{
    buf_printf(out, "\"%s\":", key);
    buf_put_json(out, str_from(value));
}

void dyn_record_path(struct buf *out, const struct dyn_self *self, const char *endpoint)
{
    buf_printf(out, "%" PRIx64 "/%s/%s/%s", self->instance, self->name_space, self->component,
               own(self, endpoint));
}

/* The members of an instance, without braces. */
static void put_instance(struct buf *out, const struct dyn_self *self, const char *endpoint)
{
    put_name(out, "component", self->component);
    buf_putc(out, ',');
    put_name(out, "endpoint", own(self, endpoint));
    buf_putc(out, ',');
    put_name(out, "namespace", self->name_space);
    buf_printf(out, ",\"instance_id\":%" PRIu64 ",\"transport\":{\"tcp\":\"%s/", self->instance,
               self->address);
    dyn_record_path(out, self, endpoint);
    buf_puts(out, "\"},");
    put_name(out, "device_type", self->device);
    buf_puts(out, ",\"request_plane_codec\":\"msgpack\"");
}

void dyn_record_key(struct buf *out, const struct dyn_self *self, const char *endpoint)
{
    buf_printf(out, "%s/%s/%s/%" PRIx64, self->name_space, self->component, own(self, endpoint),
               self->instance);
}

void dyn_record_instance(struct dyn_record *out, const struct dyn_self *self, const char *endpoint)
{
    *out = (struct dyn_record){.bucket = DYN_INSTANCES};
    dyn_record_key(&out->key, self, endpoint);
    buf_puts(&out->value, "{\"type\":\"Endpoint\",");
    put_instance(&out->value, self, endpoint);
    buf_putc(&out->value, '}');
}

/* "name/<value>", where everything but letters, digits, '-' and '_' is %XX. */
static void put_segment(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "%s/", name);
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;
        if ((c < 128 && isalnum(c)) || c == '-' || c == '_')
            buf_putc(out, (char)c);
        else
            buf_printf(out, "%%%02X", c);
    }
}

static void put_event_key(struct buf *out, const struct dyn_self *self, const char *topic, uint64_t publisher)
{
    put_segment(out, "namespace", self->name_space);
    buf_putc(out, '/');
    put_segment(out, "component", self->component);
    buf_putc(out, '/');
    put_segment(out, "endpoint", self->endpoint);
    buf_putc(out, '/');
    put_segment(out, "topic", topic);
    buf_printf(out, "/%" PRIx64, publisher);
}

/* {"namespace":...,"component":...,"name":...} */
static void put_endpoint(struct buf *out, const struct dyn_self *self)
{
    buf_putc(out, '{');
    put_name(out, "namespace", self->name_space);
    buf_putc(out, ',');
    put_name(out, "component", self->component);
    buf_putc(out, ',');
    put_name(out, "name", self->endpoint);
    buf_putc(out, '}');
}

static void put_event_head(struct buf *out, const struct dyn_self *self, const char *type, const char *topic)
{
    buf_printf(out, "{\"type\":\"%s\",\"scope\":{\"kind\":\"endpoint\",\"endpoint\":", type);
    put_endpoint(out, self);
    buf_puts(out, "},");
    put_name(out, "topic", topic);
}

void dyn_record_event_channel(struct dyn_record *out, const struct dyn_self *self, const char *topic,
                              uint64_t publisher, const char *zmq_address)
{
    *out = (struct dyn_record){.bucket = DYN_EVENT_CHANNELS};
    put_event_key(&out->key, self, topic, publisher);
    put_event_head(&out->value, self, "EventChannel", topic);
    buf_printf(&out->value, ",\"instance_id\":%" PRIu64 ",\"transport\":{\"kind\":\"Zmq\",\"config\":{",
               publisher);
    put_name(&out->value, "endpoint", zmq_address);
    buf_puts(&out->value, "}}}");
}

void dyn_record_event_source(struct dyn_record *out, const struct dyn_self *self, const char *topic,
                             uint64_t publisher, const char *recovery_endpoint)
{
    *out = (struct dyn_record){.bucket = DYN_EVENT_SOURCES};
    put_event_key(&out->key, self, topic, publisher);
    put_event_head(&out->value, self, "EventSource", topic);
    buf_printf(&out->value, ",\"publisher_id\":%" PRIu64 ",\"metadata\":{\"kv_state_endpoint\":", publisher);
    put_endpoint(&out->value, self);
    buf_printf(&out->value, ",\"worker\":{\"worker_id\":%" PRIu64 ",\"dp_rank\":0},\"publisher_id\":%" PRIu64,
               self->instance, publisher);
    if (recovery_endpoint) {
        buf_puts(&out->value, ",\"recovery_target\":{");
        put_instance(&out->value, self, recovery_endpoint);
        buf_putc(&out->value, '}');
    }
    buf_puts(&out->value, "}}");
}
