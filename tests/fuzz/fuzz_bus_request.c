// What a hostile child may write to its request socket: the server serves or hangs up, and serves others afterwards. The
// first byte chooses the role.
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/bus/bus_frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void receive_request_fd(int deliver_fd, int *request_fd) {
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(deliver_fd, &message, 0) != 1 || message.msg_controllen == 0)
        abort();
    memcpy(request_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
}

// Reads what the server says until it hangs up.
static void drain(int deliver_fd, int request_fd) {
    char bytes[65536];
    struct pollfd wait[2] = {{.fd = deliver_fd, .events = POLLIN}, {.fd = request_fd, .events = POLLIN}};
    for (;;) {
        if (poll(wait, 2, 10000) <= 0)
            abort(); // it neither serves nor hangs up
        if ((wait[0].revents || wait[1].revents) && recv(deliver_fd, bytes, sizeof bytes, MSG_DONTWAIT) == 0)
            return;
        (void)recv(request_fd, bytes, sizeof bytes, MSG_DONTWAIT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int deliver_fd, request_fd;
    struct kiln_bus_server *server;
    if (size == 0 || size > 65536)
        return 0;
    if (kiln_bus_server_new(&server, NULL) || kiln_bus_server_connect(server, data[0] % 3, &deliver_fd, NULL))
        abort();
    receive_request_fd(deliver_fd, &request_fd);
    (void)send(request_fd, data + 1, size - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(request_fd, SHUT_WR);
    drain(deliver_fd, request_fd);
    close(deliver_fd);
    close(request_fd);
    kiln_bus_server_free(server);
    return 0;
}
