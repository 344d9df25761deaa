// kiln-agent: one per user (or per host in system mode). Accepts wrappers and commands, keeps the embedded fleet running.
//
// The main thread runs the event loop: listening socket, signals, children, housekeeping. Each connection is served by a
// thread of its own, at most SERVING_MAX at once; a wrapper that finds no room compiles locally.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "lib/base/cleanup.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/path.h"
#include "lib/ipc/endpoint.h"
#include "producer/agent/agent.h"
#include "producer/agent/commands.h"

#define SERVING_MAX 512
#define FIRST_FRAME_MS 10000
#define TICK_MS 1000
#define STOP_WAIT_MS 5000
#define THREAD_STACK_BYTES (1 << 20)

struct service {
    struct kiln_agent agent;
    uv_loop_t loop;
    uv_poll_t accepting;
    uv_signal_t terminate, interrupt, child;
    uv_timer_t tick;
    uv_async_t stop;
    int listener;
    atomic_int serving;
    atomic_bool stopping;
};

struct accepted {
    struct service *service;
    int socket;
};

static void serve_command(struct service *service, struct kiln_conversation *conversation, const struct kiln_frame *frame) {
    struct kiln_command_request request = {0};
    struct kiln_command_reply reply = {0};
    bool stop = false;
    if (kiln_command_request_decode(frame->payload, frame->len, &request, NULL))
        return;
    uid_t uid = kiln_conversation_uid(conversation);
    kiln_conversation_begin_work(conversation);
    kiln_command_serve(&service->agent, &request, uid == 0 || uid == geteuid(), &reply, &stop);
    kiln_conversation_end_work(conversation);
    kiln_autobuf struct kiln_buf payload = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    if (kiln_command_reply_encode(&reply, &payload, NULL) == 0)
        kiln_conversation_send(conversation, KILN_FRAME_REPLY, payload.data, payload.len, NULL, 0, NULL);
    kiln_command_reply_release(&reply);
    kiln_command_request_release(&request);
    if (stop)
        uv_async_send(&service->stop);
}

static void serve_frame(struct service *service, struct kiln_conversation *conversation, const struct kiln_frame *frame) {
    if (frame->type == KILN_FRAME_COMMAND) {
        serve_command(service, conversation, frame);
        return;
    }
    struct kiln_compile_request request = {0};
    if (frame->type != KILN_FRAME_COMPILE || kiln_compile_request_decode(frame->payload, frame->len, &request, NULL))
        return;
    kiln_compile_serve(&service->agent.compile, conversation, &request);
    kiln_compile_request_release(&request);
}

static void *serve_connection(void *argument) {
    struct accepted *accepted = argument;
    struct service *service = accepted->service;
    struct kiln_conversation *conversation = NULL;
    int socket = accepted->socket;
    free(accepted);
    struct kiln_err err = {0};
    int rc = kiln_conversation_open(service->agent.conversations, socket, service->agent.options.system_mode, &conversation, &err);
    if (rc == 0)
        rc = kiln_conversation_send(conversation, KILN_FRAME_ALIVE, NULL, 0, NULL, 0, &err);
    kiln_autoframe struct kiln_frame frame = {0};
    if (rc == 0)
        rc = kiln_conversation_receive(conversation, kiln_clock_ms() + FIRST_FRAME_MS, &frame, &err);
    if (rc == 0)
        serve_frame(service, conversation, &frame);
    else if (rc != KILN_E_CLOSED)
        kiln_log(KILN_LOG_WARN, "connection_refused", "error", err.text, NULL);
    kiln_conversation_close(conversation);
    atomic_fetch_sub(&service->serving, 1);
    return NULL;
}

static void start_serving(struct service *service, int socket) {
    struct accepted *accepted = atomic_load(&service->serving) < SERVING_MAX ? malloc(sizeof *accepted) : NULL;
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    if (accepted) {
        *accepted = (struct accepted){.service = service, .socket = socket};
        atomic_fetch_add(&service->serving, 1);
    }
    if (!accepted || pthread_create(&thread, &attr, serve_connection, accepted)) {
        if (accepted)
            atomic_fetch_sub(&service->serving, 1);
        free(accepted);
        close(socket);
    }
    pthread_attr_destroy(&attr);
}

static void on_acceptable(uv_poll_t *poll, int status, int events) {
    struct service *service = poll->data;
    (void)events;
    for (int i = 0; status == 0 && i < 64; i++) {
        int socket = accept4(service->listener, NULL, NULL, SOCK_CLOEXEC);
        if (socket < 0)
            return;
        start_serving(service, socket);
    }
}

static void on_child(uv_signal_t *handle, int number) {
    struct service *service = handle->data;
    (void)number;
    // Only the two children: other processes are waited for by the threads that started them.
    for (int i = 0; service->agent.children && i < KILN_CHILDREN; i++) {
        pid_t pid;
        int status;
        if (kiln_child_runs(service->agent.children, (enum kiln_child)i, &pid) && waitpid(pid, &status, WNOHANG) == pid)
            kiln_children_exited(service->agent.children, pid, status, kiln_clock_ms());
    }
}

static void on_tick(uv_timer_t *timer) {
    struct service *service = timer->data;
    kiln_agent_tick(&service->agent, kiln_clock_ms());
}

static void on_stop_signal(uv_signal_t *handle, int number) {
    (void)number;
    uv_stop(handle->loop);
}

static void on_stop(uv_async_t *handle) { uv_stop(handle->loop); }

static void watch(struct service *service) {
    uv_loop_init(&service->loop);
    service->accepting.data = service->terminate.data = service->child.data = service->tick.data = service;
    uv_poll_init(&service->loop, &service->accepting, service->listener);
    uv_poll_start(&service->accepting, UV_READABLE, on_acceptable);
    uv_signal_init(&service->loop, &service->terminate);
    uv_signal_start(&service->terminate, on_stop_signal, SIGTERM);
    uv_signal_init(&service->loop, &service->interrupt);
    uv_signal_start(&service->interrupt, on_stop_signal, SIGINT);
    uv_signal_init(&service->loop, &service->child);
    uv_signal_start(&service->child, on_child, SIGCHLD);
    uv_timer_init(&service->loop, &service->tick);
    uv_timer_start(&service->tick, on_tick, TICK_MS, TICK_MS);
    uv_async_init(&service->loop, &service->stop, on_stop);
}

static void close_handle(uv_handle_t *handle, void *argument) {
    (void)argument;
    uv_close(handle, NULL);
}

static void unwatch(struct service *service) {
    uv_walk(&service->loop, close_handle, NULL);
    uv_run(&service->loop, UV_RUN_DEFAULT);
    uv_loop_close(&service->loop);
}

// Waiting units get their verdict (the submitter closes), then the serving threads end by themselves.
static void wind_down(struct service *service) {
    kiln_agent_give_up(&service->agent, "agent_stopping: the agent was told to stop");
    uint64_t deadline = kiln_clock_ms() + STOP_WAIT_MS;
    while (atomic_load(&service->serving) > 0 && kiln_clock_left_ms(deadline) > 0)
        usleep(2000);
}

static int run(const struct kiln_agent_options *options, struct kiln_err *err) {
    static struct service service; // threads may still look at it when the process ends
    service.listener = -1;
    int rc = kiln_agent_open(options, &service.agent, err);
    if (rc)
        return rc;
    rc = kiln_endpoint_listen(options->dir, options->system_mode ? KILN_AUDIENCE_SYSTEM : KILN_AUDIENCE_USER,
                              &service.listener, err);
    if (rc == 0 && fcntl(service.listener, F_SETFL, O_NONBLOCK))
        rc = kiln_fail_errno(err, KILN_E_IO, "listen");
    if (rc == 0) {
        watch(&service);
        kiln_log(KILN_LOG_INFO, "serving", "dir", options->dir, NULL);
        uv_run(&service.loop, UV_RUN_DEFAULT);
        kiln_log(KILN_LOG_INFO, "stopping", NULL);
        wind_down(&service);
        unwatch(&service);
        kiln_autofree char *socket_path = kiln_path_join(options->dir, "agent.sock");
        if (socket_path)
            unlink(socket_path);
    }
    if (atomic_load(&service.serving) > 0) {
        // A thread that did not end in time still uses the rooms: leave them to the process's end.
        kiln_stats_save(service.agent.stats, NULL);
        return rc;
    }
    kiln_agent_close(&service.agent);
    return rc;
}

static int own_directory(char path[PATH_MAX]) {
    ssize_t len = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (len <= 0)
        return -1;
    path[len] = 0;
    *strrchr(path, '/') = 0;
    return 0;
}

int main(int argc, char **argv) {
    static const struct option long_options[] = {{"dir", required_argument, NULL, 'd'},
                                                 {"config", required_argument, NULL, 'c'},
                                                 {"libexec", required_argument, NULL, 'l'},
                                                 {"system", no_argument, NULL, 's'},
                                                 {"version", no_argument, NULL, 'V'},
                                                 {NULL, 0, NULL, 0}};
    static char libexec[PATH_MAX];
    struct kiln_agent_options options = {0};
    int option;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == 'd')
            options.dir = optarg;
        else if (option == 'c')
            options.config = optarg;
        else if (option == 'l')
            options.libexec = optarg;
        else if (option == 's')
            options.system_mode = true;
        else if (option == 'V')
            return puts("kiln-agent " KILN_VERSION) < 0;
        else
            return 2;
    }
    if (!options.dir || options.dir[0] != '/' || optind != argc) {
        fprintf(stderr, "kiln-agent: --dir with an absolute path is needed; people use `kiln agent start`\n");
        return 2;
    }
    if (!options.libexec && own_directory(libexec) == 0)
        options.libexec = libexec;
    signal(SIGPIPE, SIG_IGN);
    umask(022); // staged toolchains are read by the sandbox's user; what is private is made with its own mode
    struct kiln_err err = {0};
    if (run(&options, &err)) {
        fprintf(stderr, "kiln-agent: %s\n", err.text);
        kiln_log(KILN_LOG_ERROR, "cannot_serve", "error", err.text, NULL);
        return 1;
    }
    return 0;
}
