// Reproducible chance (splitmix64, Steele et al. 2014), and identifiers that say what they are, for the simulated worlds.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/wire/records.h"

struct kiln_dice {
    uint64_t state; // the seed at first
};

uint64_t kiln_dice_draw(struct kiln_dice *dice);
unsigned kiln_dice_below(struct kiln_dice *dice, unsigned bound);
bool kiln_dice_chance(struct kiln_dice *dice, unsigned percent);

struct kiln_job_id kiln_sim_id(unsigned char kind, uint32_t major, uint32_t minor);
uint32_t kiln_sim_id_major(const struct kiln_job_id *id);
uint32_t kiln_sim_id_minor(const struct kiln_job_id *id);
