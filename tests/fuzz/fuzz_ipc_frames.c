// What a peer at the agent's socket may say. The first byte chooses: a payload's decoder, or (6 and up) a byte stream that
// is read as frames. What a decoder accepts must encode to the same bytes again: one form for each meaning.
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/ipc/frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DECODE_AND_ENCODE(name)                                                                                        \
    static void try_##name(const uint8_t *data, size_t size, struct kiln_buf *again) {                                 \
        struct kiln_##name got = {0};                                                                                  \
        if (kiln_##name##_decode(data, size, &got, NULL) == 0 && kiln_##name##_encode(&got, again, NULL))             \
            abort();                                                                                                   \
        kiln_##name##_release(&got);                                                                                   \
    }

DECODE_AND_ENCODE(compile_request)
DECODE_AND_ENCODE(command_request)
DECODE_AND_ENCODE(command_reply)
DECODE_AND_ENCODE(place_order)
DECODE_AND_ENCODE(placed)

static void try_local(const uint8_t *data, size_t size, struct kiln_buf *again) {
    char *reason = NULL;
    if (kiln_local_decode(data, size, &reason, NULL) == 0 && kiln_local_encode(reason, again, NULL))
        abort();
    free(reason);
}

static void read_stream(const uint8_t *data, size_t size) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        abort();
    if (size && send(pair[0], data, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size)
        abort();
    shutdown(pair[0], SHUT_WR);
    struct kiln_frame frame = {0};
    while (kiln_frame_receive(pair[1], kiln_clock_ms() + 10000, &frame, NULL) == 0)
        kiln_frame_release(&frame);
    close(pair[0]);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const decoders[])(const uint8_t *data, size_t size, struct kiln_buf *again) = {
        try_compile_request, try_command_request, try_command_reply, try_place_order, try_placed, try_local,
    };
    if (size == 0 || size > 65536)
        return 0;
    if (data[0] >= sizeof decoders / sizeof *decoders) {
        read_stream(data + 1, size - 1);
        return 0;
    }
    kiln_autobuf struct kiln_buf again = KILN_BUF_INIT(KILN_FRAME_BYTES_MAX);
    decoders[data[0]](data + 1, size - 1, &again);
    if (again.len && (again.len != size - 1 || memcmp(again.data, data + 1, again.len) != 0))
        abort();
    return 0;
}
