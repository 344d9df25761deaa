// A shared object of this machine's kind (ELF, x86-64, little-endian), read with bounds from a hostile file.
//
// Addresses are the object's own, before loading. Every read says whether the bytes are there; nothing is mapped, so a
// file that is cut while it is read is a failed read and no signal. Format: the System V ABI, gABI 4.1 and its x86-64
// supplement. Not thread-safe per object.
#pragma once

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

#define KILN_ELF_SEGMENTS_MAX 64u
#define KILN_ELF_RANGES_MAX 256u

struct kiln_elf_range {
    uint64_t start, end;
};

struct kiln_elf_object {
    int fd; // borrowed
    uint64_t size;
    Elf64_Phdr segments[KILN_ELF_SEGMENTS_MAX];
    size_t segments_count;
    // Code: the executable sections, in order; without a section table, the executable segments.
    struct kiln_elf_range code[KILN_ELF_RANGES_MAX];
    size_t code_count;
};

// KILN_E_UNSUPPORTED: no such object, with the reason; KILN_E_IO: reading failed.
int kiln_elf_object_open(int fd, struct kiln_elf_object *object, struct kiln_err *err);
// Reads `len` bytes at `address` of the loaded image's file part.
bool kiln_elf_object_read(const struct kiln_elf_object *object, uint64_t address, void *out, size_t len);
// The first segment of that type, or NULL.
const Elf64_Phdr *kiln_elf_object_segment(const struct kiln_elf_object *object, uint32_t type);
