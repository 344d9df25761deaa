#include "verifier/sim/dice.h"

#include <string.h>

uint64_t kiln_dice_draw(struct kiln_dice *dice) {
    uint64_t z = dice->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

unsigned kiln_dice_below(struct kiln_dice *dice, unsigned bound) { return (unsigned)(kiln_dice_draw(dice) % bound); }
bool kiln_dice_chance(struct kiln_dice *dice, unsigned percent) { return kiln_dice_below(dice, 100) < percent; }

struct kiln_job_id kiln_sim_id(unsigned char kind, uint32_t major, uint32_t minor) {
    struct kiln_job_id id = {{kind}};
    memcpy(id.bytes + 4, &major, sizeof major);
    memcpy(id.bytes + 8, &minor, sizeof minor);
    return id;
}

uint32_t kiln_sim_id_major(const struct kiln_job_id *id) {
    uint32_t major;
    memcpy(&major, id->bytes + 4, sizeof major);
    return major;
}

uint32_t kiln_sim_id_minor(const struct kiln_job_id *id) {
    uint32_t minor;
    memcpy(&minor, id->bytes + 8, sizeof minor);
    return minor;
}
