// One connection of a wrapper or command: frames out are serialised, ALIVE goes out while work is done.
// A keepalive thread serves all conversations. Thread-safe.
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "lib/ipc/frames.h"

struct kiln_conversation;
struct kiln_conversations;

struct kiln_conversations *kiln_conversations_new(void); // starts the keepalive thread; NULL on failure
void kiln_conversations_free(struct kiln_conversations *conversations);

// Takes ownership of the socket. Checks the peer: the agent's own user, root, or anybody when `anybody` is set.
int kiln_conversation_open(struct kiln_conversations *conversations, int socket, bool anybody,
                           struct kiln_conversation **conversation, struct kiln_err *err);
void kiln_conversation_close(struct kiln_conversation *conversation);
pid_t kiln_conversation_pid(const struct kiln_conversation *conversation);
uid_t kiln_conversation_uid(const struct kiln_conversation *conversation);
int kiln_conversation_receive(struct kiln_conversation *conversation, uint64_t deadline_ms, struct kiln_frame *frame,
                              struct kiln_err *err);
int kiln_conversation_send(struct kiln_conversation *conversation, enum kiln_frame_type type, const void *payload,
                           size_t len, const int *fds, size_t fds_count, struct kiln_err *err);
// Between these two the keepalive thread sends ALIVE.
void kiln_conversation_begin_work(struct kiln_conversation *conversation);
void kiln_conversation_end_work(struct kiln_conversation *conversation);
bool kiln_conversation_gone(const struct kiln_conversation *conversation); // the peer hung up
