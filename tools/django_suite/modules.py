"""The modules of Django's tests that read or write a database through models.

Left out are those that test Django's tools (schema, migrations, introspection, inspectdb, the
backends, the test runner), need a server of their own, or touch no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

EVERYWHERE = """
admin_changelist admin_custom_urls admin_filters admin_inlines admin_ordering admin_utils
admin_views admin_widgets aggregation aggregation_regress annotations async auth_tests basic
bulk_create composite_pk constraints contenttypes_tests custom_columns custom_lookups
custom_managers custom_methods custom_pk datatypes dates datetimes db_functions defer
defer_regress delete delete_regress distinct_on_fields empty expressions expressions_case
expressions_window extra_regress field_defaults field_subclassing file_uploads filtered_relation
fixtures fixtures_model_package fixtures_regress flatpages_tests force_insert_update
foreign_object forms_tests from_db_value generic_inline_admin generic_relations
generic_relations_regress generic_views get_earliest_or_latest get_object_or_404 get_or_create
handlers inline_formsets known_related_objects lookup m2m_and_m2o m2m_intermediary m2m_multiple
m2m_recursive m2m_regress m2m_signals m2m_through m2m_through_regress m2o_recursive
managers_regress many_to_many many_to_one many_to_one_null max_lengths model_fields model_forms
model_formsets model_formsets_regress model_indexes model_inheritance model_inheritance_regress
model_meta model_options model_package model_regress model_utils modeladmin multiple_database
mutually_referential nested_foreign_keys null_fk null_fk_ordering null_queries one_to_one
or_lookups order_with_respect_to ordering pagination prefetch_related properties
proxy_model_inheritance proxy_models queries queryset_pickle raw_query redirects_tests
reserved_names reverse_lookup save_delete_hooks select_for_update select_related
select_related_onetoone select_related_regress serializers sessions_tests signals sitemaps_tests
sites_framework sites_tests string_lookup swappable_models syndication_tests test_client
test_client_regress test_utils timezones transaction_hooks transactions unmanaged_models update
update_only_fields validation xor_lookups
"""

#: What runs on one database only.
ONLY_ON: Mapping[str, Sequence[str]] = {"postgres": ["postgres_tests"]}


#: How many modules run in one process. On SQLite, Django checks the foreign keys of all tables
#: after each test, which takes longer than the test if there are many tables.
AT_A_TIME = 12


def groups_for(database: str) -> list[list[str]]:
    """Return what `runtests.py` is asked to run on this database, process by process."""
    modules = [*EVERYWHERE.split(), *ONLY_ON.get(database, ())]
    return [modules[at : at + AT_A_TIME] for at in range(0, len(modules), AT_A_TIME)]
