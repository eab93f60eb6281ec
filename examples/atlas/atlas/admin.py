from django.contrib import admin

from atlas.models import AlternateName, City, Country, Language, TimeZone


class AlternateNames(admin.TabularInline):
    model = AlternateName
    extra = 0


@admin.register(City)
class CityAdmin(admin.ModelAdmin):
    list_display = ["name", "country", "population", "time_zone", "language_count", "slug"]
    list_select_related = ["country", "time_zone"]
    list_filter = ["country"]
    search_fields = ["search_entry__text"]
    search_help_text = "Try: zurich"
    readonly_fields = ["slug", "language_count"]
    filter_horizontal = ["languages"]
    inlines = [AlternateNames]


@admin.register(Country)
class CountryAdmin(admin.ModelAdmin):
    list_display = ["name", "code", "capital"]
    search_fields = ["name", "code"]
    filter_horizontal = ["languages"]


@admin.register(Language)
class LanguageAdmin(admin.ModelAdmin):
    list_display = ["name", "code"]
    search_fields = ["name", "code"]


admin.site.register(TimeZone)
