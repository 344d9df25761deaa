// Between the embedded server and its clients, over two Unix stream sockets per connection.
//
// Delivery socket (the descriptor a child is given): the server sends one byte KILN_BUS_HELLO with the client's end of the
// request socket attached (SCM_RIGHTS), then DELIVER frames, each followed by value_len bytes. The client sends nothing.
// Request socket: the client sends frames; the server answers PUBLISH and SUBSCRIBE with one struct kiln_bus_reply each, in
// order, and ACK with nothing. It reads the next request only when the last answer has left, so neither side can make
// the other buffer without bound. Integers are in host order: both ends are one machine.
#pragma once

#include <stdint.h>

#include "lib/bus/bus.h"

#define KILN_BUS_HELLO 0x4b

enum kiln_bus_op { KILN_BUS_OP_PUBLISH = 1, KILN_BUS_OP_SUBSCRIBE = 2, KILN_BUS_OP_ACK = 3, KILN_BUS_OP_DELIVER = 4 };

struct kiln_bus_frame {
    uint8_t op;         // enum kiln_bus_op
    uint8_t topic;      // PUBLISH, ACK, DELIVER
    uint16_t key_len;   // PUBLISH, DELIVER
    uint32_t partition; // PUBLISH, ACK, DELIVER
    uint32_t value_len; // PUBLISH, DELIVER; else 0
    union {
        uint16_t topics; // SUBSCRIBE: bit per topic
        uint16_t writer; // DELIVER: enum kiln_bus_role of the connection it came from, set by the server
    };
    uint16_t from_end;  // SUBSCRIBE: bit per topic
    uint64_t offset;    // ACK, DELIVER
    unsigned char key[KILN_BUS_KEY_BYTES_MAX];
};
_Static_assert(sizeof(struct kiln_bus_frame) == 88, "no padding travels");
_Static_assert(KILN_TOPIC_COUNT <= 16, "topics fit their masks");

struct kiln_bus_reply {
    int32_t code; // 0 or KILN_E_*
    uint32_t zero;
};
