#include "producer/agent/ancestor.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/cleanup.h"
#include "lib/base/fs.h"

#define HOPS_MAX 16
#define CACHE_SLOTS 16
#define ENVIRON_BYTES_MAX (4u << 20)

struct slot {
    pid_t pid;
    unsigned long long started;
    unsigned char *environ_bytes;
    size_t environ_len;
};

struct kiln_ancestors {
    pthread_mutex_t lock;
    struct slot slots[CACHE_SLOTS];
    unsigned next;
};

struct kiln_ancestors *kiln_ancestors_new(void) {
    struct kiln_ancestors *ancestors = calloc(1, sizeof *ancestors);
    if (ancestors)
        pthread_mutex_init(&ancestors->lock, NULL);
    return ancestors;
}

void kiln_ancestors_free(struct kiln_ancestors *ancestors) {
    if (!ancestors)
        return;
    for (int i = 0; i < CACHE_SLOTS; i++)
        free(ancestors->slots[i].environ_bytes);
    pthread_mutex_destroy(&ancestors->lock);
    free(ancestors);
}

void kiln_ancestor_release(struct kiln_ancestor *ancestor) {
    for (size_t i = 0; i < ancestor->env_count; i++)
        free(ancestor->env[i]);
    free(ancestor->env);
    *ancestor = (struct kiln_ancestor){0};
}

// Name, parent and start time from /proc/PID/stat (proc(5)); the name is in parentheses and may hold any byte.
static bool read_stat(pid_t pid, char name[32], pid_t *parent, unsigned long long *started) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    kiln_autobuf struct kiln_buf text = KILN_BUF_INIT(8192);
    if (kiln_fs_read_file(AT_FDCWD, path, &text, NULL))
        return false;
    const char *open = strchr(kiln_buf_text(&text), '('), *close = strrchr(kiln_buf_text(&text), ')');
    int ppid;
    if (!open || !close || close < open ||
        sscanf(close + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ppid,
               started) != 2)
        return false;
    snprintf(name, 32, "%.*s", (int)(close - open - 1), open + 1);
    *parent = ppid;
    return true;
}

static bool load_environ(struct kiln_ancestors *ancestors, pid_t pid, unsigned long long started, struct kiln_buf *out) {
    pthread_mutex_lock(&ancestors->lock);
    for (int i = 0; i < CACHE_SLOTS; i++) {
        const struct slot *slot = &ancestors->slots[i];
        if (slot->pid == pid && slot->started == started && slot->environ_bytes) {
            int rc = kiln_buf_add(out, slot->environ_bytes, slot->environ_len);
            pthread_mutex_unlock(&ancestors->lock);
            return rc == 0;
        }
    }
    pthread_mutex_unlock(&ancestors->lock);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    if (kiln_fs_read_file(AT_FDCWD, path, out, NULL) || out->len == 0)
        return false;
    unsigned char *copy = malloc(out->len);
    if (!copy)
        return true;
    memcpy(copy, out->data, out->len);
    pthread_mutex_lock(&ancestors->lock);
    struct slot *slot = &ancestors->slots[ancestors->next++ % CACHE_SLOTS];
    free(slot->environ_bytes);
    *slot = (struct slot){.pid = pid, .started = started, .environ_bytes = copy, .environ_len = out->len};
    pthread_mutex_unlock(&ancestors->lock);
    return true;
}

static bool split_environ(const struct kiln_buf *bytes, struct kiln_ancestor *ancestor) {
    size_t count = 0;
    for (size_t i = 0; i < bytes->len; i++)
        count += bytes->data[i] == 0;
    if (!(ancestor->env = calloc(count + 1, sizeof *ancestor->env)))
        return false;
    for (size_t at = 0; at < bytes->len;) {
        size_t len = strnlen((const char *)bytes->data + at, bytes->len - at);
        if (at + len == bytes->len)
            break;
        char *entry = strndup((const char *)bytes->data + at, len);
        if (!entry)
            return false;
        ancestor->env[ancestor->env_count++] = entry;
        at += len + 1;
    }
    return true;
}

static bool find_cargo(pid_t wrapper, pid_t *cargo, unsigned long long *started, int *hops) {
    pid_t pid = wrapper, parent;
    char name[32];
    if (!read_stat(pid, name, &parent, started))
        return false;
    for (int hop = 0; hop < HOPS_MAX && parent > 1; hop++) {
        pid = parent;
        if (!read_stat(pid, name, &parent, started))
            return false;
        if (strcmp(name, "cargo"))
            continue;
        *cargo = pid;
        *hops = hop;
        return true;
    }
    return false;
}

bool kiln_ancestor_identify(pid_t wrapper, pid_t *cargo, unsigned long long *started) {
    int hops;
    return find_cargo(wrapper, cargo, started, &hops);
}

void kiln_ancestor_find(struct kiln_ancestors *ancestors, pid_t wrapper, struct kiln_ancestor *ancestor) {
    *ancestor = (struct kiln_ancestor){0};
    pid_t cargo;
    unsigned long long started;
    int hops;
    if (!find_cargo(wrapper, &cargo, &started, &hops))
        return;
    kiln_autobuf struct kiln_buf bytes = KILN_BUF_INIT(ENVIRON_BYTES_MAX);
    if (load_environ(ancestors, cargo, started, &bytes) && split_environ(&bytes, ancestor)) {
        ancestor->found = true;
        ancestor->direct = hops == 0;
    } else {
        kiln_ancestor_release(ancestor);
    }
}
