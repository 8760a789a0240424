/* Read a trace of npgemma, or any other safetensors file, in C: no library, no JSON parser.
 *
 * The format: 8 bytes with the length of a JSON header, the header, then the numbers. The header has for every array
 *     "NAME":{"dtype":"F32","shape":[1,68,128],"data_offsets":[BEGIN,END]}
 * and under "__metadata__" strings, in a trace among them "manifest". A machine with little-endian numbers is assumed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *header;
    unsigned char *data;
} trace_file;

typedef struct {
    const float *values;
    long shape[8];
    int axes;
    long size;
} trace_array;

static void trace_fail(const char *what, const char *which) {
    fprintf(stderr, "error: %s '%s'\n", what, which);
    exit(2);
}

static trace_file trace_open(const char *path) {
    FILE *file = fopen(path, "rb");
    unsigned long long length = 0;
    trace_file trace;
    long end;
    if (!file || fread(&length, 8, 1, file) != 1) trace_fail("cannot read", path);
    fseek(file, 0, SEEK_END);
    end = ftell(file);
    if (length > (unsigned long long)end - 8) trace_fail("this is no safetensors file:", path);
    trace.header = malloc(length + 1);
    trace.data = malloc(end - 8 - length + 1);
    fseek(file, 8, SEEK_SET);
    if (!trace.header || !trace.data || fread(trace.header, 1, length, file) != length ||
        fread(trace.data, 1, end - 8 - length, file) != end - 8 - length)
        trace_fail("cannot read all of", path);
    trace.header[length] = 0;
    fclose(file);
    return trace;
}

/* Return the place behind a key of an object, the colon skipped; keys inside of strings have a backslash in front. */
static const char *trace_key(const char *text, const char *key) {
    size_t length = strlen(key);
    const char *at = text;
    while ((at = strstr(at, key))) {
        if (at > text && at[-1] == '"' && (at == text + 1 || at[-2] != '\\') && at[length] == '"') {
            at += length + 1;
            while (*at == ' ' || *at == ':') at++;
            return at;
        }
        at++;
    }
    return NULL;
}

static trace_array trace_get(const trace_file *trace, const char *name) {
    const char *entry = trace_key(trace->header, name), *at;
    trace_array found = {NULL, {0}, 0, 1};
    if (!entry) trace_fail("the file has no array", name);
    at = trace_key(entry, "dtype");
    if (!at || strncmp(at, "\"F32\"", 5)) trace_fail("only float32 is read, which this is not:", name);
    at = strchr(trace_key(entry, "shape"), '[') + 1;
    while (*at && *at != ']' && found.axes < 8) {
        found.shape[found.axes] = strtol(at, (char **)&at, 10);
        found.size *= found.shape[found.axes++];
        while (*at == ',' || *at == ' ') at++;
    }
    at = strchr(trace_key(entry, "data_offsets"), '[') + 1;
    found.values = (const float *)(trace->data + strtoll(at, NULL, 10));
    return found;
}

/* Copy a string of the metadata, such as the manifest (JSON), with its escapes undone; NULL if it is not there. */
static char *trace_metadata(const trace_file *trace, const char *key) {
    const char *at = trace_key(trace->header, key);
    char *text, *to;
    if (!at || *at++ != '"') return NULL;
    text = to = malloc(strlen(at) + 1);
    for (; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1] == 'n') *to++ = '\n', at++;
        else if (*at == '\\' && at[1] != 'u') *to++ = *++at;
        else *to++ = *at;
    }
    *to = 0;
    return text;
}
