// librdkafka's settings: those that Kiln's promises rest on, those of [tls], and what [kafka] may add.
#pragma once

#include <librdkafka/rdkafka.h>

#include "lib/bus/bus_kafka.h"

#define KILN_KAFKA_GROUP_BYTES 280 // topic prefix and name

enum kiln_kafka_use {
    KILN_KAFKA_PRODUCES, // or, for a reader, only asks for metadata
    KILN_KAFKA_IN_GROUP,
    KILN_KAFKA_READS, // partitions of its own choice
};

int kiln_kafka_conf_new(const struct kiln_kafka_options *options, enum kiln_kafka_use use, rd_kafka_conf_t **conf,
                        struct kiln_err *err);
