// Random bytes that repeat: a ChaCha20 key stream (RFC 8439, section 2.3) instead of the kernel's.
//
// Key: the 32 bytes of OBSERVER_DIR/seed. Nonce: who draws (tool or macro, 4 bytes) and which program this is (8
// bytes). Block counter: how many blocks that caller has drawn in this process. So the threads of a tool may race among
// themselves without changing what macros get, and the order in which programs run does not matter.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "consumer/preload/observer.h"

#define BLOCK 64u

static unsigned char key[32];
static int key_state; // 0 not read, 1 being read, 2 there, 3 absent
static uint32_t drawn[2]; // blocks, by caller

static uint32_t rotate(uint32_t word, int by) { return word << by | word >> (32 - by); }

static void quarter_round(uint32_t s[16], int a, int b, int c, int d) {
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 16);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 12);
    s[a] += s[b], s[d] = rotate(s[d] ^ s[a], 8);
    s[c] += s[d], s[b] = rotate(s[b] ^ s[c], 7);
}

static void make_block(const uint32_t input[16], unsigned char out[BLOCK]) {
    uint32_t s[16];
    memcpy(s, input, sizeof s);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++)
            quarter_round(s, i, i + 4, i + 8, i + 12);
        for (int i = 0; i < 4; i++)
            quarter_round(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
    }
    for (int i = 0; i < 16; i++)
        s[i] += input[i];
    memcpy(out, s, BLOCK); // little-endian, as the machine
}

static int read_key(void) {
    const char *dir = kiln_whereabouts_get()->observer_dir;
    size_t len = strlen(dir);
    char path[sizeof ((struct kiln_whereabouts *)0)->observer_dir + sizeof "/seed"];
    memcpy(path, dir, len);
    memcpy(path + len, "/seed", sizeof "/seed");
    long fd = len ? kiln_raw_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0, 0, 0) : -1;
    if (fd < 0)
        return 3;
    long got = RAW3(SYS_read, fd, key, sizeof key);
    RAW3(SYS_close, fd, 0, 0);
    return got == (long)sizeof key ? 2 : 3;
}

static bool have_key(void) {
    int now = __atomic_load_n(&key_state, __ATOMIC_ACQUIRE);
    if (now == 0 && __atomic_compare_exchange_n(&key_state, &now, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        now = read_key();
        __atomic_store_n(&key_state, now, __ATOMIC_RELEASE);
    }
    while (now < 2) {
        __builtin_ia32_pause();
        now = __atomic_load_n(&key_state, __ATOMIC_ACQUIRE);
    }
    return now == 2;
}

void kiln_seed_prepare(void) { have_key(); }

static uint64_t hash_program(void) {
    const char *path = kiln_whereabouts_get()->program;
    const char *slash = path ? strrchr(path, '/') : NULL;
    const unsigned char *name = (const unsigned char *)(slash ? slash + 1 : path ? path : "");
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (; *name; name++)
        hash = (hash ^ *name) * 0x100000001b3u;
    return hash;
}

bool kiln_seed_draw(const void *caller_address, void *out, size_t len) {
    if (!have_key())
        return false;
    uint32_t caller = (uint32_t)kiln_callers_find(caller_address);
    uint64_t program = hash_program();
    uint32_t input[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    memcpy(input + 4, key, sizeof key);
    input[13] = caller;
    input[14] = (uint32_t)program;
    input[15] = (uint32_t)(program >> 32);
    input[12] = __atomic_fetch_add(&drawn[caller], (uint32_t)((len + BLOCK - 1) / BLOCK), __ATOMIC_RELAXED);
    for (unsigned char *to = out; len; input[12]++) {
        unsigned char block[BLOCK];
        size_t part = len < BLOCK ? len : BLOCK;
        make_block(input, block);
        memcpy(to, block, part);
        to += part;
        len -= part;
    }
    return true;
}

OBSERVED ssize_t getrandom(void *out, size_t len, unsigned flags) {
    if (flags <= (GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) && kiln_seed_draw(CALLER, out, len))
        return (ssize_t)len;
    return REAL(getrandom)(out, len, flags);
}

OBSERVED int getentropy(void *out, size_t len) {
    if (len > 256) {
        errno = EIO;
        return -1;
    }
    return kiln_seed_draw(CALLER, out, len) ? 0 : REAL(getentropy)(out, len);
}

OBSERVED uint32_t arc4random(void) {
    uint32_t value;
    return kiln_seed_draw(CALLER, &value, sizeof value) ? value : REAL(arc4random)();
}

OBSERVED void arc4random_buf(void *out, size_t len) {
    if (!kiln_seed_draw(CALLER, out, len))
        REAL(arc4random_buf)(out, len);
}

OBSERVED uint32_t arc4random_uniform(uint32_t bound) {
    uint64_t value; // so wide that the remainder's bias does not show
    if (!kiln_seed_draw(CALLER, &value, sizeof value))
        return REAL(arc4random_uniform)(bound);
    return bound ? (uint32_t)(value % bound) : 0;
}
