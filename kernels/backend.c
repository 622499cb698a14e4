/* The registry of backends. The CPU is part of the program; CUDA is a plug-in, libstator_cuda.so beside the executable, so that
 * the program starts anywhere. A device that is not there is refused here in plain words; "auto" takes the best that is, and
 * says in the log why it was not the better one. */
#define _GNU_SOURCE
#include "be_plugin.h"
#include "cpu_backend.h"
#include "log.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CUDA_PLUGIN "libstator_cuda.so"

/* `path` becomes DIR/libstator_cuda.so with the executable's DIR, or the bare name, which the loader looks up. */
static void plugin_path(char *path, size_t size)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    char *slash = NULL;
    if (n > 0) {
        exe[n] = 0;
        slash = strrchr(exe, '/');
    }
    if (slash) {
        *slash = 0;
        int len = snprintf(path, size, "%s/" CUDA_PLUGIN, exe);
        if (len > 0 && (size_t)len < size && access(path, R_OK) == 0)
            return;
    }
    snprintf(path, size, CUDA_PLUGIN);
}

/* ST_ENOENT: there is no plug-in; other failures are the plug-in's, or its libraries'. */
static int cuda_create(struct be **out, const struct be_options *o, struct err *e)
{
    char path[4200];
    plugin_path(path, sizeof path);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        bool there = strchr(path, '/') != NULL;
        const char *why = dlerror();
        return there ? err_set(e, ST_EUNSUP, "cuda: the plug-in does not load: %.180s", why)
                     : err_set(e, ST_ENOENT, "cuda: no " CUDA_PLUGIN " beside the program: it was built without nvcc");
    }
    const struct be_plugin *p = dlsym(lib, "stator_plugin");
    const struct be_plugin want = {BE_PLUGIN_NUMBERS};
    if (!p || p->abi != want.abi || p->ops_bytes != want.ops_bytes || p->options_bytes != want.options_bytes ||
        p->batch_bytes != want.batch_bytes)
        return err_set(e, ST_EUNSUP, "cuda: %.180s is of another build", path);
    return p->create(out, o, e);
}

int be_create(struct be **out, const struct be_options *o, struct err *e)
{
    const char *device = o->device ? o->device : "auto";
    struct err why = {0};
    if (strcmp(device, "cpu") == 0)
        return cpu_backend_create(out, o, e);
    if (strcmp(device, "cuda") == 0) {
        int rc = cuda_create(out, o, &why);
        return rc == ST_OK ? rc : err_set(e, rc == ST_ENOENT ? ST_EUNSUP : rc, "--device %.220s", why.text);
    }
    if (strcmp(device, "auto") != 0)
        return err_set(e, ST_EINVAL, "device: '%s' is none of auto, cpu, cuda", device);
    int rc = cuda_create(out, o, &why);
    if (rc == ST_OK)
        return rc;
    if (rc != ST_ENOENT)
        log_info("device", "%s; using the CPU", why.text);
    return cpu_backend_create(out, o, e);
}

void be_destroy(struct be *be)
{
    if (be)
        be->ops->destroy(be);
}

const char *be_describe(const struct be *be)
{
    return be->ops->describe(be);
}
