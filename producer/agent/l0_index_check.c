#include "producer/agent/l0_index_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_MAGIC 0xBEEFC0DEu
#define META_VERSION 1u
#define NO_PAGE UINT64_MAX
#define HEADER_BYTES 16u
#define NODE_BYTES 8u
#define DEPTH_MAX 32 // liblmdb's cursor stack
#define KEY_BYTES_MAX 511u
#define MAP_BYTES_MAX (1ull << 40)
#define PAGE_BYTES_MAX 0x8000u // what liblmdb takes where the system has larger pages

enum page_flag { PAGE_BRANCH = 0x01, PAGE_LEAF = 0x02, PAGE_OVERFLOW = 0x04, PAGE_META = 0x08, PAGE_KINDS = 0x6f };
enum node_flag { NODE_BIG = 0x01 };
enum tree_flag { TREE_INTEGER_KEY = 0x08, ENV_NO_SUBDIR = 0x4000 };

struct page_header {
    uint64_t number;
    uint16_t pad, flags;
    union {
        struct {
            uint16_t lower, upper;
        };
        uint32_t run_pages;
    };
};

struct node_header {
    uint16_t low, high, flags, key_bytes;
};

struct tree_root {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};

struct meta {
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct tree_root trees[2]; // free pages, entries
    uint64_t last_page, transaction;
};

_Static_assert(sizeof(struct page_header) == HEADER_BYTES && sizeof(struct node_header) == NODE_BYTES &&
                   sizeof(struct tree_root) == 48 && sizeof(struct meta) == 136,
               "the on-disk layout of LMDB 0.9");

enum tree { TREE_FREE, TREE_MAIN };

struct check {
    const unsigned char *file;
    size_t file_bytes, page_bytes;
    struct meta meta;
    unsigned char *seen;   // one bit for each page
    uint64_t *free_pages;  // all that the free tree lists
    size_t free_count, free_cap;
    struct kiln_err *err;
};

// Borrowed from the file; NULL before there is one.
struct key {
    const unsigned char *bytes;
    size_t len;
};

// One tree's walk, in the order of its keys.
struct walk {
    struct check *check;
    enum tree tree;
    unsigned depth;
    uint64_t entries, branch_pages, leaf_pages, overflow_pages;
    struct key last;      // of the leaves so far
    struct key separator; // from the branch just taken: the next key is not below it
};

#define CORRUPT(check, ...) kiln_fail((check)->err, KILN_E_CORRUPT, __VA_ARGS__)

// The bytes at an offset; NULL past the end of the file.
static const unsigned char *bytes_at(const struct check *check, uint64_t offset, size_t len) {
    return offset <= check->file_bytes && len <= check->file_bytes - offset ? check->file + offset : NULL;
}

// A page belongs to one place only.
static int claim(struct check *check, uint64_t page) {
    if (page < 2 || page > check->meta.last_page)
        return CORRUPT(check, "index page %llu does not exist", (unsigned long long)page);
    unsigned char bit = (unsigned char)(1u << (page % 8));
    if (check->seen[page / 8] & bit)
        return CORRUPT(check, "index page %llu is used twice", (unsigned long long)page);
    check->seen[page / 8] |= bit;
    return 0;
}

static int find_page(struct check *check, uint64_t page, const unsigned char **bytes, struct page_header *header) {
    int rc = claim(check, page);
    if (rc)
        return rc;
    *bytes = bytes_at(check, page * check->page_bytes, check->page_bytes);
    if (!*bytes)
        return CORRUPT(check, "the index ends before page %llu", (unsigned long long)page);
    memcpy(header, *bytes, sizeof *header);
    return header->number == page ? 0 : CORRUPT(check, "index page %llu has a wrong number", (unsigned long long)page);
}

static int add_free_page(struct check *check, uint64_t page) {
    if (check->free_count == check->free_cap) {
        size_t cap = check->free_cap ? check->free_cap * 2 : 512;
        uint64_t *pages = realloc(check->free_pages, cap * sizeof *pages);
        if (!pages)
            return kiln_fail(check->err, KILN_E_NOMEM, "no memory to check the index");
        check->free_pages = pages;
        check->free_cap = cap;
    }
    check->free_pages[check->free_count++] = page;
    return 0;
}

// A value of the free tree: a count, then that many page numbers in descending order.
static int check_free_list(struct check *check, const unsigned char *data, size_t len) {
    uint64_t count, page, last = NO_PAGE;
    if (len < sizeof count || len % sizeof count)
        return CORRUPT(check, "a list of free index pages is cut");
    memcpy(&count, data, sizeof count);
    if (count > len / sizeof count - 1)
        return CORRUPT(check, "a list of free index pages is too long");
    for (uint64_t i = 1; i <= count; i++) {
        memcpy(&page, data + i * sizeof page, sizeof page);
        if (page >= last)
            return CORRUPT(check, "a list of free index pages is out of order");
        int rc = add_free_page(check, page);
        if (rc)
            return rc;
        last = page;
    }
    return 0;
}

static int check_overflow(struct walk *walk, uint64_t page, size_t len) {
    struct check *check = walk->check;
    struct page_header header;
    const unsigned char *bytes;
    uint64_t pages = (HEADER_BYTES - 1 + len) / check->page_bytes + 1;
    int rc = find_page(check, page, &bytes, &header);
    for (uint64_t i = 1; rc == 0 && i < pages; i++)
        rc = claim(check, page + i);
    if (rc)
        return rc;
    if ((header.flags & PAGE_KINDS) != PAGE_OVERFLOW || header.run_pages != pages)
        return CORRUPT(check, "index page %llu is no start of a long value", (unsigned long long)page);
    walk->overflow_pages += pages;
    bytes = bytes_at(check, page * check->page_bytes + HEADER_BYTES, len);
    if (!bytes)
        return CORRUPT(check, "the index ends within a long value");
    return walk->tree == TREE_FREE ? check_free_list(check, bytes, len) : 0;
}

static int compare_keys(const struct walk *walk, const struct key *a, const struct key *b) {
    if (walk->tree == TREE_FREE) {
        uint64_t left, right;
        memcpy(&left, a->bytes, sizeof left);
        memcpy(&right, b->bytes, sizeof right);
        return (left > right) - (left < right);
    }
    int order = memcmp(a->bytes, b->bytes, a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static int check_key_size(struct walk *walk, size_t len) {
    bool fits = walk->tree == TREE_FREE ? len == sizeof(uint64_t) : len >= 1 && len <= KEY_BYTES_MAX;
    return fits ? 0 : CORRUPT(walk->check, "an index key has %zu bytes", len);
}

static int check_key(struct walk *walk, const unsigned char *bytes, size_t len) {
    struct key key = {bytes, len};
    int rc = check_key_size(walk, len);
    if (rc)
        return rc;
    if ((walk->last.bytes && compare_keys(walk, &walk->last, &key) >= 0) ||
        (walk->separator.bytes && compare_keys(walk, &walk->separator, &key) > 0))
        return CORRUPT(walk->check, "index keys are out of order");
    walk->last = key;
    walk->separator = (struct key){0};
    walk->entries++;
    return 0;
}

static int check_leaf_node(struct walk *walk, const unsigned char *node, size_t room, size_t *node_bytes) {
    struct node_header header;
    memcpy(&header, node, sizeof header);
    size_t data_bytes = (size_t)header.high << 16 | header.low;
    bool big = header.flags == NODE_BIG;
    *node_bytes = NODE_BYTES + header.key_bytes + (big ? sizeof(uint64_t) : data_bytes);
    if ((header.flags && !big) || data_bytes == 0 || *node_bytes > room)
        return CORRUPT(walk->check, "an index entry leaves its page");
    int rc = check_key(walk, node + NODE_BYTES, header.key_bytes);
    if (rc)
        return rc;
    const unsigned char *data = node + NODE_BYTES + header.key_bytes;
    if (!big)
        return walk->tree == TREE_FREE ? check_free_list(walk->check, data, data_bytes) : 0;
    uint64_t page;
    memcpy(&page, data, sizeof page);
    return check_overflow(walk, page, data_bytes);
}

static int check_page(struct walk *walk, uint64_t number, unsigned depth);

// The key of the first child says nothing and may be empty.
static int check_branch_node(struct walk *walk, const unsigned char *node, size_t room, size_t index,
                             size_t *node_bytes) {
    struct node_header header;
    memcpy(&header, node, sizeof header);
    *node_bytes = NODE_BYTES + header.key_bytes;
    if (*node_bytes > room)
        return CORRUPT(walk->check, "an index branch leaves its page");
    if (index == 0)
        return 0;
    struct key key = {node + NODE_BYTES, header.key_bytes};
    int rc = check_key_size(walk, key.len);
    if (rc)
        return rc;
    if (walk->last.bytes && compare_keys(walk, &walk->last, &key) >= 0)
        return CORRUPT(walk->check, "index branches are out of order");
    walk->separator = key;
    return 0;
}

static int check_node(struct walk *walk, const unsigned char *node, size_t room, unsigned depth, size_t index,
                      size_t *node_bytes) {
    if (depth == walk->depth)
        return check_leaf_node(walk, node, room, node_bytes);
    struct node_header header;
    memcpy(&header, node, sizeof header);
    int rc = check_branch_node(walk, node, room, index, node_bytes);
    if (rc)
        return rc;
    return check_page(walk, (uint64_t)header.flags << 32 | (uint64_t)header.high << 16 | header.low, depth + 1);
}

// Entries lie without gaps, at even offsets, up to the end of the page: so none overlap.
static int check_nodes(struct walk *walk, const unsigned char *page, const struct page_header *header, unsigned depth) {
    size_t page_bytes = walk->check->page_bytes, used = 0;
    size_t count = (header->lower - HEADER_BYTES) / sizeof(uint16_t);
    for (size_t i = 0; i < count; i++) {
        uint16_t offset;
        size_t node_bytes;
        memcpy(&offset, page + HEADER_BYTES + i * sizeof offset, sizeof offset);
        if (offset < header->upper || offset + NODE_BYTES > page_bytes)
            return CORRUPT(walk->check, "an index entry lies outside its page");
        int rc = check_node(walk, page + offset, page_bytes - offset, depth, i, &node_bytes);
        if (rc)
            return rc;
        used += (node_bytes + 1) / 2 * 2;
    }
    return used == page_bytes - header->upper ? 0 : CORRUPT(walk->check, "index entries overlap");
}

static int check_page(struct walk *walk, uint64_t number, unsigned depth) {
    struct check *check = walk->check;
    struct page_header header;
    const unsigned char *page;
    int rc = find_page(check, number, &page, &header);
    if (rc)
        return rc;
    unsigned kind = header.flags & PAGE_KINDS;
    if (kind != (depth == walk->depth ? PAGE_LEAF : PAGE_BRANCH))
        return CORRUPT(check, "index page %llu is of the wrong kind", (unsigned long long)number);
    *(kind == PAGE_LEAF ? &walk->leaf_pages : &walk->branch_pages) += 1;
    if (header.lower % 2 || header.upper < header.lower)
        return CORRUPT(check, "index page %llu has wrong bounds", (unsigned long long)number);
    // liblmdb descends through the second entry of a branch, and expects no leaf without one.
    if (header.lower < HEADER_BYTES + (kind == PAGE_BRANCH && walk->tree == TREE_MAIN ? 2u : 1u) * sizeof(uint16_t))
        return CORRUPT(check, "index page %llu has too few entries", (unsigned long long)number);
    return check_nodes(walk, page, &header, depth);
}

static int check_tree(struct check *check, enum tree tree) {
    const struct tree_root *root = &check->meta.trees[tree];
    struct walk walk = {.check = check, .tree = tree, .depth = root->depth};
    if ((root->flags & ~(unsigned)ENV_NO_SUBDIR) != (tree == TREE_FREE ? TREE_INTEGER_KEY : 0u))
        return CORRUPT(check, "the index has flags %x", root->flags);
    if (root->root == NO_PAGE)
        return root->entries || root->depth ? CORRUPT(check, "the index lost its root") : 0;
    if (root->depth == 0 || root->depth > DEPTH_MAX)
        return CORRUPT(check, "the index is %u pages deep", root->depth);
    int rc = check_page(&walk, root->root, 1);
    // The cache trims by these counts: a wrong one would empty it for ever.
    if (rc == 0 && (walk.entries != root->entries || walk.branch_pages != root->branch_pages ||
                    walk.leaf_pages != root->leaf_pages || walk.overflow_pages != root->overflow_pages))
        rc = CORRUPT(check, "the index does not hold what its meta page counts");
    return rc;
}

// Both metas must be whole (liblmdb reads both); the later one is used.
static int read_metas(struct check *check) {
    for (uint64_t i = 0; i < 2; i++) {
        struct page_header header;
        struct meta meta;
        const unsigned char *page = bytes_at(check, i * check->page_bytes, check->page_bytes);
        if (!page)
            return CORRUPT(check, "the index ends before its meta page %llu", (unsigned long long)i);
        memcpy(&header, page, sizeof header);
        memcpy(&meta, page + HEADER_BYTES, sizeof meta);
        if (header.number != i || (header.flags & PAGE_KINDS) != PAGE_META || meta.magic != META_MAGIC ||
            meta.version != META_VERSION || meta.trees[TREE_FREE].pad != check->page_bytes)
            return CORRUPT(check, "the index has no sound meta page %llu", (unsigned long long)i);
        if (meta.map_bytes > MAP_BYTES_MAX || meta.last_page < 1 || meta.last_page >= MAP_BYTES_MAX / check->page_bytes)
            return CORRUPT(check, "the index has wrong sizes in meta page %llu", (unsigned long long)i);
        if (i == 0 || meta.transaction > check->meta.transaction)
            check->meta = meta;
    }
    // Pages at the end that were freed unwritten may be missing, but never more than the file has.
    if (check->meta.last_page > check->file_bytes / check->page_bytes * 4 + 1024)
        return CORRUPT(check, "the index is much shorter than its meta page says");
    return 0;
}

static int check_file(struct check *check) {
    int rc = read_metas(check);
    if (rc)
        return rc;
    check->seen = calloc(check->meta.last_page / 8 + 1, 1);
    if (!check->seen)
        return kiln_fail(check->err, KILN_E_NOMEM, "no memory to check the index");
    rc = check_tree(check, TREE_MAIN);
    if (rc == 0)
        rc = check_tree(check, TREE_FREE);
    for (size_t i = 0; rc == 0 && i < check->free_count; i++)
        rc = claim(check, check->free_pages[i]);
    free(check->free_pages);
    free(check->seen);
    return rc;
}

int kiln_l0_index_check(int fd, struct kiln_err *err) {
    struct stat st;
    struct check check = {.page_bytes = (size_t)sysconf(_SC_PAGESIZE), .err = err};
    if (check.page_bytes > PAGE_BYTES_MAX)
        check.page_bytes = PAGE_BYTES_MAX;
    if (fstat(fd, &st))
        return kiln_fail_errno(err, KILN_E_IO, "cannot stat the index");
    if (st.st_size == 0)
        return 0;
    check.file_bytes = (size_t)st.st_size;
    // Mapped, as liblmdb will: a file that cannot be read ends either.
    void *file = mmap(NULL, check.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        return kiln_fail_errno(err, KILN_E_IO, "cannot map the index");
    check.file = file;
    int rc = check_file(&check);
    munmap(file, check.file_bytes);
    return rc;
}
