#include "lib/macro/macro_code.h"

#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/cleanup.h"

#define CODE_BYTES_MAX (256u << 20)
#define FRAMES_MAX (4u << 20)

// .eh_frame_hdr's table, in the one encoding that linkers write: pairs of 32-bit offsets from the header, sorted.
struct frame {
    int32_t start, entry;
};

struct frames {
    uint64_t base; // address of .eh_frame_hdr
    struct frame *table;
    size_t count;
};

struct search {
    const struct kiln_elf_object *object;
    struct frames frames;
    csh engine;
    cs_insn *insn;
    enum kiln_macro_code found;
};

static void read_frames(const struct kiln_elf_object *object, struct frames *frames) {
    enum { VERSION = 1, PCREL_SDATA4 = 0x1b, UDATA4 = 0x03, DATAREL_SDATA4 = 0x3b };
    struct {
        uint8_t version, pointer, count, table;
        int32_t frame;
        uint32_t frames_count;
    } header;
    const Elf64_Phdr *segment = kiln_elf_object_segment(object, PT_GNU_EH_FRAME);
    if (!segment || !kiln_elf_object_read(object, segment->p_vaddr, &header, sizeof header))
        return;
    if (header.version != VERSION || header.pointer != PCREL_SDATA4 || header.count != UDATA4 ||
        header.table != DATAREL_SDATA4 || header.frames_count > FRAMES_MAX)
        return;
    size_t len = header.frames_count * sizeof *frames->table;
    struct frame *table = malloc(len + 1);
    if (!table || !kiln_elf_object_read(object, segment->p_vaddr + sizeof header, table, len)) {
        free(table);
        return;
    }
    *frames = (struct frames){segment->p_vaddr, table, header.frames_count};
}

static uint64_t frame_start(const struct frames *frames, size_t index) {
    return frames->base + (uint64_t)(int64_t)frames->table[index].start;
}

// How many frames start at or before `address`.
static size_t count_frames_before(const struct frames *frames, uint64_t address) {
    size_t low = 0, high = frames->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (frame_start(frames, middle) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// The frame's end. Where its entry is not in the usual encoding (offset from itself, 32 bits), the next one's start.
static uint64_t frame_end(const struct search *search, size_t index, uint64_t limit) {
    struct {
        uint32_t length, common;
        int32_t start;
        uint32_t range;
    } entry;
    const struct frames *frames = &search->frames;
    uint64_t start = frame_start(frames, index);
    uint64_t at = frames->base + (uint64_t)(int64_t)frames->table[index].entry;
    uint64_t end = limit;
    if (kiln_elf_object_read(search->object, at, &entry, sizeof entry) &&
        at + offsetof(__typeof__(entry), start) + (uint64_t)(int64_t)entry.start == start)
        end = start + entry.range;
    else if (index + 1 < frames->count)
        end = frame_start(frames, index + 1);
    return end > start && end < limit ? end : limit;
}

// The function that holds `address`; between functions, what lies between them.
static struct kiln_elf_range find_function(const struct search *search, const struct kiln_elf_range *code,
                                           uint64_t address) {
    struct kiln_elf_range around = *code;
    size_t before = count_frames_before(&search->frames, address);
    if (before < search->frames.count && frame_start(&search->frames, before) < around.end)
        around.end = frame_start(&search->frames, before);
    if (before == 0 || frame_start(&search->frames, before - 1) < code->start)
        return around;
    uint64_t end = frame_end(search, before - 1, around.end);
    if (address < end)
        return (struct kiln_elf_range){frame_start(&search->frames, before - 1), end};
    around.start = end;
    return around;
}

static bool is_candidate(const unsigned char *bytes) {
    return (bytes[0] == 0x0f && (bytes[1] == 0x05 || bytes[1] == 0x34)) || (bytes[0] == 0xcd && bytes[1] == 0x80);
}

static bool enters_kernel(const cs_insn *insn) {
    return insn->id == X86_INS_SYSCALL || insn->id == X86_INS_SYSENTER ||
           (insn->id == X86_INS_INT && insn->bytes[insn->size - 1] == 0x80);
}

// Disassembles [at, end) and judges every candidate in it. `code` holds the bytes from address `base` on; past `end`
// may lie the rest of an instruction.
static void judge_function(struct search *search, const unsigned char *code, size_t len, uint64_t base,
                           const struct kiln_elf_range *function) {
    const uint8_t *at = code + (function->start - base);
    size_t left = len - (size_t)(function->start - base);
    uint64_t address = function->start;
    while (address < function->end && search->found != KILN_CODE_CALLS) {
        if (!cs_disasm_iter(search->engine, &at, &left, &address, search->insn)) {
            size_t rest = (size_t)(function->end - address);
            for (size_t i = 0; i + 1 < rest && i + 1 < left; i++)
                if (is_candidate(at + i))
                    search->found = KILN_CODE_UNCLEAR;
            return;
        }
        if (enters_kernel(search->insn))
            search->found = KILN_CODE_CALLS;
    }
}

static int search_range(struct search *search, const struct kiln_elf_range *range, struct kiln_err *err) {
    size_t len = (size_t)(range->end - range->start);
    kiln_autofree unsigned char *code = malloc(len);
    if (!code)
        return kiln_fail(err, KILN_E_NOMEM, "macro code");
    if (!kiln_elf_object_read(search->object, range->start, code, len)) {
        search->found = KILN_CODE_UNCLEAR;
        return 0;
    }
    for (size_t i = 0; i + 1 < len && search->found != KILN_CODE_CALLS;) {
        if (!is_candidate(code + i)) {
            i++;
            continue;
        }
        struct kiln_elf_range function = find_function(search, range, range->start + i);
        judge_function(search, code, len, range->start, &function);
        size_t next = (size_t)(function.end - range->start);
        i = next > i ? next : i + 1;
    }
    return 0;
}

static void close_search(struct search *search) {
    free(search->frames.table);
    if (search->insn)
        cs_free(search->insn, 1);
    if (search->engine)
        cs_close(&search->engine);
}

int kiln_macro_code_search(const struct kiln_elf_object *object, enum kiln_macro_code *found, struct kiln_err *err) {
    __attribute__((cleanup(close_search))) struct search search = {.object = object};
    uint64_t total = 0;
    for (size_t i = 0; i < object->code_count; i++) {
        uint64_t len = object->code[i].end - object->code[i].start;
        if (len > CODE_BYTES_MAX || (total += len) > CODE_BYTES_MAX) {
            *found = KILN_CODE_UNCLEAR;
            return 0;
        }
    }
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &search.engine) != CS_ERR_OK || !(search.insn = cs_malloc(search.engine)))
        return kiln_fail(err, KILN_E_NOMEM, "disassembler");
    read_frames(object, &search.frames);
    int rc = 0;
    for (size_t i = 0; rc == 0 && search.found != KILN_CODE_CALLS && i < object->code_count; i++)
        rc = search_range(&search, &object->code[i], err);
    if (rc == 0)
        *found = search.found;
    return rc;
}
