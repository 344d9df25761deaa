#include "lib/macro/elf_object.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/cleanup.h"

#define SECTIONS_MAX 4096u

static bool read_at(int fd, uint64_t offset, void *out, size_t len) {
    unsigned char *to = out;
    while (len) {
        ssize_t got = pread(fd, to, len, (off_t)offset);
        if (got <= 0)
            return false;
        to += got;
        offset += (uint64_t)got;
        len -= (size_t)got;
    }
    return true;
}

static bool inside(uint64_t offset, uint64_t len, uint64_t size) { return offset <= size && len <= size - offset; }

static int read_header(struct kiln_elf_object *object, Elf64_Ehdr *header, struct kiln_err *err) {
    struct stat st;
    if (fstat(object->fd, &st) < 0)
        return kiln_fail_errno(err, KILN_E_IO, "macro object");
    if (!S_ISREG(st.st_mode))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: not a regular file");
    object->size = (uint64_t)st.st_size;
    if (object->size < sizeof *header || !read_at(object->fd, 0, header, sizeof *header) ||
        memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: not ELF");
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_X86_64 || header->e_type != ET_DYN)
        return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: not a shared object for x86-64");
    return 0;
}

static int read_segments(struct kiln_elf_object *object, const Elf64_Ehdr *header, struct kiln_err *err) {
    uint64_t len = (uint64_t)header->e_phnum * sizeof(Elf64_Phdr);
    if (header->e_phnum > KILN_ELF_SEGMENTS_MAX || header->e_phentsize != sizeof(Elf64_Phdr) ||
        !inside(header->e_phoff, len, object->size) || !read_at(object->fd, header->e_phoff, object->segments, len))
        return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: no readable segments");
    for (size_t i = 0; i < header->e_phnum; i++) {
        const Elf64_Phdr *segment = &object->segments[i];
        if (segment->p_type == PT_LOAD &&
            (!inside(segment->p_offset, segment->p_filesz, object->size) || segment->p_filesz > segment->p_memsz ||
             segment->p_vaddr > UINT64_MAX - segment->p_memsz))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: segment %zu lies outside the file", i);
    }
    object->segments_count = header->e_phnum;
    return 0;
}

static bool add_code(struct kiln_elf_object *object, uint64_t start, uint64_t len) {
    if (len == 0)
        return true;
    if (object->code_count == KILN_ELF_RANGES_MAX || start > UINT64_MAX - len)
        return false;
    object->code[object->code_count++] = (struct kiln_elf_range){start, start + len};
    return true;
}

static bool add_executable_segments(struct kiln_elf_object *object) {
    bool fits = true;
    for (size_t i = 0; fits && i < object->segments_count; i++)
        if (object->segments[i].p_type == PT_LOAD && object->segments[i].p_flags & PF_X)
            fits = add_code(object, object->segments[i].p_vaddr, object->segments[i].p_filesz);
    return fits;
}

static bool add_executable_sections(struct kiln_elf_object *object, const Elf64_Ehdr *header) {
    uint64_t len = (uint64_t)header->e_shnum * sizeof(Elf64_Shdr);
    if (header->e_shnum == 0 || header->e_shnum > SECTIONS_MAX || header->e_shentsize != sizeof(Elf64_Shdr) ||
        !inside(header->e_shoff, len, object->size))
        return false;
    kiln_autofree Elf64_Shdr *sections = malloc(len);
    if (!sections || !read_at(object->fd, header->e_shoff, sections, len))
        return false;
    for (size_t i = 0; i < header->e_shnum; i++)
        if (sections[i].sh_flags & SHF_EXECINSTR && sections[i].sh_flags & SHF_ALLOC &&
            sections[i].sh_type == SHT_PROGBITS && !add_code(object, sections[i].sh_addr, sections[i].sh_size))
            return false;
    return object->code_count > 0;
}

static int compare_ranges(const void *a, const void *b) {
    const struct kiln_elf_range *left = a, *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

int kiln_elf_object_open(int fd, struct kiln_elf_object *object, struct kiln_err *err) {
    struct kiln_elf_object opened = {.fd = fd};
    Elf64_Ehdr header;
    int rc = read_header(&opened, &header, err);
    if (rc == 0)
        rc = read_segments(&opened, &header, err);
    if (rc)
        return rc;
    if (!add_executable_sections(&opened, &header)) {
        opened.code_count = 0;
        if (!add_executable_segments(&opened))
            return kiln_fail(err, KILN_E_UNSUPPORTED, "macro object: too much code to name");
    }
    qsort(opened.code, opened.code_count, sizeof *opened.code, compare_ranges);
    *object = opened;
    return 0;
}

bool kiln_elf_object_read(const struct kiln_elf_object *object, uint64_t address, void *out, size_t len) {
    for (size_t i = 0; i < object->segments_count; i++) {
        const Elf64_Phdr *segment = &object->segments[i];
        if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
            inside(address - segment->p_vaddr, len, segment->p_filesz))
            return read_at(object->fd, segment->p_offset + (address - segment->p_vaddr), out, len);
    }
    return false;
}

const Elf64_Phdr *kiln_elf_object_segment(const struct kiln_elf_object *object, uint32_t type) {
    for (size_t i = 0; i < object->segments_count; i++)
        if (object->segments[i].p_type == type)
            return &object->segments[i];
    return NULL;
}
