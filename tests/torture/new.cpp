/* new.cpp - C++'s allocations, over the C ones of allocator.c */
#include <cstdlib>
#include <new>

void *operator new(std::size_t bytes)
{
    void *memory;

    while (!(memory = std::malloc(bytes ? bytes : 1))) {
        const std::new_handler handler = std::get_new_handler();

        if (!handler)
            throw std::bad_alloc();
        handler();
    }
    return memory;
}

void *operator new[](std::size_t bytes)
{
    return operator new(bytes);
}

void operator delete(void *memory) noexcept
{
    std::free(memory);
}

void operator delete[](void *memory) noexcept
{
    std::free(memory);
}

void operator delete(void *memory, std::size_t) noexcept
{
    std::free(memory);
}

void operator delete[](void *memory, std::size_t) noexcept
{
    std::free(memory);
}

void *operator new(std::size_t bytes, const std::nothrow_t &) noexcept
{
    try {
        return operator new(bytes);
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

void *operator new[](std::size_t bytes, const std::nothrow_t &tag) noexcept
{
    return operator new(bytes, tag);
}

void operator delete(void *memory, const std::nothrow_t &) noexcept
{
    std::free(memory);
}

void operator delete[](void *memory, const std::nothrow_t &) noexcept
{
    std::free(memory);
}
